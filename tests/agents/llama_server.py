"""llama.cpp's own server with a model whose answers are known, under the name that the tests ask for: MODEL PORT [embed]."""

import sys
import threading

from xllamacpp import CommonParams, Server, llama_pooling_type

params = CommonParams()
params.model.path = sys.argv[1]
params.port = int(sys.argv[2])
params.model_alias = {"gemma3:1b"}
params.n_ctx = 8192
params.n_parallel = 1
if sys.argv[3:] == ["embed"]:
    params.embedding = True
    params.pooling_type = llama_pooling_type.LLAMA_POOLING_TYPE_MEAN
server = Server(params)
print("ready", flush=True)
threading.Event().wait()
