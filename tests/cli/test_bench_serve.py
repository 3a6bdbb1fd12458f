"""`ingot bench serve`: against servers of our own, plain, with a key and over TLS; what it writes; how it fails."""
import json
import os
import shutil
import subprocess
import sys
import unittest
import xml.dom.minidom

sys.path.insert(0, os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "gateway"))
import server
from support import Case, EXIT, ingot

MODEL = None


def bench(*args, **kw):
    return ingot("bench", "serve", *args, **kw)


class BenchServe(Case):
    def test_model_with_its_own_server(self):
        svg = self.path("a.svg")
        code, out, err = bench(MODEL, "--clients", 3, "--requests", 9, "--input", "20-40", "--output", "5-9", "--json", "-",
                               "--svg", svg, "--slo", "ttft=60s,itl=60s", "--", "--threads", 1)
        self.assertEqual((code, err), (0, ""))
        report = json.loads(out)
        run, = report["runs"]
        self.assertEqual((run["requests"], run["ok"], run["errors"], run["clients"]), (9, 9, {}, 3))
        self.assertTrue(45 <= run["output_tokens"] <= 81, run)
        self.assertTrue(170 <= run["input_tokens"] <= 370, run)  # 9 prompts of 20 to 40, made to measure
        self.assertTrue(0 < run["ttft_ms"]["p50"] <= run["ttft_ms"]["p99"] <= run["e2e_ms"]["max"], run)
        self.assertEqual(run["good_share"], 1)
        self.assertGreater(run["server_cpu_s"], 0)
        self.assertGreater(run["server_rss_peak"], 1 << 20)
        self.assertEqual(xml.dom.minidom.parse(svg).documentElement.tagName, "svg")

    def test_exact_lengths(self):
        code, out, _ = bench(MODEL, "--clients", 1, "--requests", 4, "--input", 100, "--output", 7, "--json", "-")
        self.assertEqual(code, 0)
        run, = json.loads(out)["runs"]
        self.assertEqual((run["input_tokens"], run["output_tokens"]), (400, 28))

    def test_sweep_chat_and_trace(self):
        trace, svg = self.path("t.csv", "TIMESTAMP,ContextTokens,GeneratedTokens\n0,30,5\n0.1,20,6\n0.2,10,7\n9,9,9\n"), self.path("s.svg")
        with server.Server(path=MODEL) as s:
            url = f"http://127.0.0.1:{s.port}"
            code, out, err = bench(url, "--rate", "20,60", "--requests", 6, "--input", 10, "--output", 3, "--json", "-",
                                   "--svg", svg, "--server-pid", s.process.pid)
            self.assertIn(code, (0, EXIT["limit"]), err)  # a busy machine may make it void: it says so
            runs = json.loads(out)["runs"]
            self.assertEqual([r["rate"] for r in runs], [20, 60])
            self.assertEqual(code == 0, not any(r["void"] for r in runs))
            self.assertGreater(runs[0]["server_cpu_s"], 0)
            with open(svg) as f:
                self.assertIn("requests a second, offered", f.read())
            xml.dom.minidom.parse(svg)
            code, out, err = bench(url, "--trace", trace, "--trace-for", 5, "--speed", 2)
            self.assertIn(code, (0, EXIT["limit"]), err)
            self.assertIn("3 requests", out.decode())
            self.assertIn("18 out", out.decode())

    def test_key_and_tls(self):
        if not shutil.which("openssl"):
            self.skipTest("openssl is not here")
        cert, key = self.path("c.pem"), self.path("k.pem")
        subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days",
                        "2", "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost", "-keyout", key, "-out", cert],
                       check=True, capture_output=True)
        small = ("--clients", 2, "--requests", 4, "--input", 10, "--output", 3)
        with server.Server("--tls-cert", cert, "--tls-key", key, path=MODEL, env={"INGOT_API_KEY": "secret"}) as s:
            url = f"https://localhost:{s.port}"
            code, out, err = bench(url, "--ca", cert, "--api-key", "secret", *small)
            self.assertEqual((code, err), (0, ""))
            self.assertIn("4 ok", out.decode())
            self.assertEqual(bench(url, "--insecure", *small, env={"OPENAI_API_KEY": "secret"})[0], 0)
            code, _, err = bench(url, "--ca", cert, "--api-key", "wrong", *small)
            self.assertNotEqual(code, 0)
            self.assertIn("401", err)
            self.assertEqual(bench(url, "--api-key", "secret", *small)[0], EXIT["io"])  # nobody vouches for it
            code = bench(f"https://127.0.0.1:{s.port}", "--ca", cert, "--api-key", "secret", *small)[0]
            self.assertEqual(code, EXIT["io"])  # another name than the certificate's
            self.assertEqual(bench(f"http://localhost:{s.port}", "--api-key", "secret", *small)[0], EXIT["io"])

    def test_mistakes(self):
        for args, code, word in [((), "invalid", "usage"), ((MODEL, "--rate", "0"), "invalid", "--rate"),
                                 ((MODEL, "--rate", "1", "--clients", "1"), "invalid", "exclude"),
                                 ((MODEL, "--input", "9-3"), "invalid", "--input"), ((MODEL, "--slo", "x"), "invalid", "--slo"),
                                 ((MODEL, "--clients", "-1"), "invalid", "--clients"),
                                 (("http://127.0.0.1:1", "extra"), "invalid", "extra"),
                                 (("http://127.0.0.1:1",), "io", "connection"),
                                 ((self.path("no.gguf"),), "io", "does not exist"),
                                 ((MODEL, "--trace", self.path("no.csv")), "not_found", "no.csv")]:
            got, _, err = bench(*args)
            self.assertEqual((got, word in err), (EXIT[code], True), (args, got, err))
        code, out, _ = bench("--help")
        self.assertTrue(code == 0 and b"examples:" in out)
        self.assertIn(b"bench serve", ingot("help", "bench")[1])


if __name__ == "__main__":
    MODEL = server.model()
    unittest.main(argv=sys.argv[:1])
