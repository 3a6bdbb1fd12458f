"""Texts as vectors, with nothing but ctypes: python3 embed.py LIBINGOT.so MODEL TEXT TEXT ...

Prints how alike each text is to the first. MODEL embeds, or generates: then the mean of its tokens stands for a text."""
import ctypes as c
import sys


class Error(c.Structure):
    _fields_ = [("status", c.c_int), ("text", c.c_char * 512)]


class Options(c.Structure):
    _fields_ = [("size", c.c_size_t), ("threads", c.c_int32), ("context", c.c_int32), ("kv", c.c_int32),
                ("exact", c.c_int32), ("kv_bytes", c.c_uint64), ("streams", c.c_int32), ("streams_max", c.c_int32),
                ("cache", c.c_char_p), ("progress", c.c_void_p), ("ctx", c.c_void_p), ("pooling", c.c_char_p)]


class Info(c.Structure):
    _fields_ = [("size", c.c_size_t), ("name", c.c_char_p), ("family", c.c_char_p), ("context", c.c_int32),
                ("n_vocab", c.c_int32), ("n_embd", c.c_int32), ("n_layer", c.c_int32), ("bos", c.c_int32),
                ("eos", c.c_int32), ("has_tokenizer", c.c_int32), ("has_template", c.c_int32), ("n_param", c.c_int64),
                ("task", c.c_int32), ("n_out", c.c_int32)]


class Embedding(c.Structure):
    _fields_ = [("size", c.c_size_t), ("texts", c.POINTER(c.c_char_p)), ("ids", c.c_void_p), ("n_ids", c.c_void_p),
                ("n_text", c.c_size_t), ("query", c.c_char_p), ("prompt", c.c_char_p), ("dimensions", c.c_int32),
                ("flags", c.c_int32), ("out", c.POINTER(c.c_float)), ("room", c.c_size_t), ("n_token", c.c_void_p),
                ("interrupt", c.c_void_p)]


def main(library, path, *texts):
    ingot = c.CDLL(library)
    error, model, info = Error(), c.c_void_p(), Info(size=c.sizeof(Info))

    def check(status):
        if status:
            sys.exit(f"embed: {error.text.decode()}")

    check(ingot.ingot_model_open(c.byref(model), path.encode(), None, c.byref(error)))
    check(ingot.ingot_model_describe(model, c.byref(info), c.byref(error)))
    if info.task == 0:  # it generates
        ingot.ingot_model_close(model)
        options = Options(size=c.sizeof(Options), pooling=b"mean")
        check(ingot.ingot_model_open(c.byref(model), path.encode(), c.byref(options), c.byref(error)))
        check(ingot.ingot_model_describe(model, c.byref(info), c.byref(error)))
    n = info.n_out
    out = (c.c_float * (len(texts) * n))()
    request = Embedding(size=c.sizeof(Embedding), texts=(c.c_char_p * len(texts))(*(t.encode() for t in texts)),
                        n_text=len(texts), out=out, room=len(out))
    check(ingot.ingot_embed(model, c.byref(request), None, c.byref(error)))
    for i, text in enumerate(texts):
        print(f"{sum(out[k] * out[i * n + k] for k in range(n)):.6f}  {text}")
    ingot.ingot_model_close(model)


if __name__ == "__main__":
    main(*sys.argv[1:])
