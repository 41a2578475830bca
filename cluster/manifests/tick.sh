#!/bin/sh
# One tick of a schedule, in the CronJob's pod: creates a RayJob, unless one of this schedule is not over yet, and lasts as long
# as it does; so concurrencyPolicy Forbid keeps ticks apart. A pod that takes over from one that was lost waits for the RayJob
# which that one has created.
#
# Environment: SELECTOR, the labels of the schedule's RayJobs; RAYJOB, the manifest's file; JOB_NAME and JOB_UID, the Job that
# this pod belongs to and the RayJob goes with; POLL_SECONDS.
# Exit: 0 the RayJob succeeded, or this tick is skipped; 1 it has failed or is gone; 2 Kubernetes refuses, try again.
set -u

over='Complete Failed ValidationFailed' # the values of status.jobDeploymentStatus at which nothing runs any more

found=$(kubectl get rayjobs.ray.io --selector="$SELECTOR" --output=jsonpath="\
{range .items[*]}{.metadata.name}|{.metadata.ownerReferences[0].uid}|{.status.jobDeploymentStatus}{\"\n\"}{end}") || exit 2
rayjob=$(printf '%s\n' "$found" | awk -F '|' -v uid="$JOB_UID" '$2 == uid { print $1; exit }')

if [ -z "$rayjob" ]; then
    running=$(printf '%s\n' "$found" |
        awk -F '|' -v over=" $over " '$1 != "" && !($3 != "" && index(over, " " $3 " ")) { print $1; exit }')
    if [ -n "$running" ]; then
        echo "skipped: RayJob $running of this schedule is not over yet"
        exit 0
    fi
    created=$(sed -e "s/TICK_JOB_NAME/$JOB_NAME/" -e "s/TICK_JOB_UID/$JOB_UID/" "$RAYJOB" |
        kubectl create --filename=- --output=name) || exit 2
    rayjob=${created##*/}
    echo "created RayJob $rayjob"
fi

while :; do
    if status=$(kubectl get rayjobs.ray.io "$rayjob" --ignore-not-found \
        --output=jsonpath='{.status.jobDeploymentStatus}|{.status.jobStatus}|{.status.reason}|{.status.message}'); then
        case $status in
        '')
            echo "RayJob $rayjob is gone" >&2
            exit 1
            ;;
        'Complete|SUCCEEDED|'*)
            echo "RayJob $rayjob succeeded"
            exit 0
            ;;
        'Complete|'* | 'Failed|'* | 'ValidationFailed|'*)
            echo "RayJob $rayjob has failed: $status" >&2
            exit 1
            ;;
        esac
    fi # else kubectl has said why; the RayJob runs on without us
    sleep "$POLL_SECONDS"
done
