"""A Ray cluster of three nodes on this machine, as a program: prints its address, and runs until stdin ends.

The head has no CPUs, so that actors are on the other nodes; the test ends these by signals to their raylets.
"""

import sys

from ray.cluster_utils import Cluster

STORE_BYTES = 100 * 2**20


def main() -> None:
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "object_store_memory": STORE_BYTES})
    for _ in range(2):
        cluster.add_node(num_cpus=3, object_store_memory=STORE_BYTES)
    print(cluster.address, flush=True)
    sys.stdin.read()
    cluster.shutdown()


if __name__ == "__main__":
    main()
