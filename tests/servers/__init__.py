"""Stand-ins for services: S3 servers, a fault-injecting proxy, a store stepped request by request, kubectl, networks."""
