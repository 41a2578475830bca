"""Object stores for the tests: real S3 servers, a fault-injecting proxy, a store that is stepped request by request."""
