"""libingot from Python, with nothing but ctypes: python3 generate.py LIBINGOT.so MODEL PROMPT"""
import ctypes as c
import sys


class Error(c.Structure):
    _fields_ = [("status", c.c_int), ("text", c.c_char * 512)]


class Sampling(c.Structure):
    _fields_ = [("size", c.c_size_t), ("temperature", c.c_float), ("top_p", c.c_float), ("top_k", c.c_int32),
                ("min_p", c.c_float), ("repetition_penalty", c.c_float), ("presence_penalty", c.c_float),
                ("frequency_penalty", c.c_float), ("max_tokens", c.c_int32), ("min_tokens", c.c_int32),
                ("ignore_eos", c.c_int32), ("has_seed", c.c_int32), ("seed", c.c_uint64), ("logit_bias", c.c_void_p),
                ("n_logit_bias", c.c_size_t), ("stops", c.c_void_p), ("n_stop", c.c_size_t)]

    def __init__(self, **fields):  # what is not given: the model's own
        super().__init__(**{"size": c.sizeof(Sampling), "temperature": -1, "top_p": -1, "top_k": -1,
                            "repetition_penalty": -1, **fields})


def main(library, model, prompt):
    ingot = c.CDLL(library)
    ingot.ingot_generate.argtypes = [c.POINTER(c.c_void_p), c.c_char_p, c.c_char_p, c.POINTER(Sampling),
                                     c.POINTER(Error)]
    ingot.ingot_free.argtypes = [c.c_void_p]
    error, text = Error(), c.c_void_p()
    sampling = Sampling(max_tokens=40, has_seed=1, seed=7)
    if ingot.ingot_generate(c.byref(text), model.encode(), prompt.encode(), c.byref(sampling), c.byref(error)):
        sys.exit(f"generate: {error.text.decode()}")
    print(c.string_at(text).decode())
    ingot.ingot_free(text)


if __name__ == "__main__":
    main(*sys.argv[1:])
