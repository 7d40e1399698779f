"""valkey-py: `Valkey` and `ValkeyCluster`, in RESP2 and RESP3."""

import python_client
import suite
import valkey

python_client.run_all(suite.arguments(), "valkey-py", valkey, valkey.Valkey, valkey.ValkeyCluster)
