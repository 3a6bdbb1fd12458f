"""`ingot run` on a terminal: prompt, line editing, history, interrupts, leaving."""
import os
import pty
import select
import signal
import subprocess
import time

from support import INGOT, ROOT, Case, main, tiny_model


class Terminal:
    def __init__(self, *args, env):
        self.master, slave = pty.openpty()
        clean = {k: v for k, v in os.environ.items() if not k.startswith("INGOT_")}
        self.process = subprocess.Popen([INGOT, *args], stdin=slave, stdout=slave, stderr=slave, close_fds=True,
                                        start_new_session=True, env={**clean, "TERM": "xterm", **env})
        os.close(slave)
        self.seen = b""

    def wait_for(self, text, seconds=30):
        """Everything up to and with `text`, which is taken from what is yet to be seen."""
        end = time.monotonic() + seconds
        while text not in self.seen:
            if time.monotonic() > end:
                raise AssertionError(f"{text!r} did not come; seen: {self.seen!r}")
            if select.select([self.master], [], [], 0.2)[0]:
                try:
                    self.seen += os.read(self.master, 4096)
                except OSError:
                    break
        assert text in self.seen, self.seen
        before, self.seen = self.seen.split(text, 1)
        return before + text

    def type(self, text):
        os.write(self.master, text)

    def close(self):
        code = self.process.wait(30)
        os.close(self.master)
        return code


class Chat(Case):
    def start(self, *more):
        model = tiny_model(self.folder)
        t = Terminal("run", model, "-n", "5", "--temperature", "0", *more, env={"INGOT_CACHE": self.folder})
        t.wait_for(b"/help lists the commands")
        t.wait_for(b"> ")
        return t

    def test_answers_and_remembers_lines(self):
        t = self.start()
        t.type(b"hte\x02\x02\x02\x04\x06h\x05\n")  # "hte", back three, delete, forward, "h": "the"
        t.wait_for(b"5 output tokens")
        t.wait_for(b"> ")
        t.type(b"\x1b[A\n")  # the line before
        t.wait_for(b"5 output tokens")
        t.wait_for(b"> ")
        t.type(b"/temperature 0.25\n")
        t.wait_for(b"temperature 0.25")
        t.wait_for(b"> ")
        t.type(b"\x04")
        self.assertEqual(t.close(), 0)
        with open(os.path.join(self.folder, "history")) as f:
            self.assertIn("\nthe\\012\n", f.read())

    def test_an_interrupt_at_the_prompt_drops_the_line(self):
        t = self.start()
        t.type(b"never sent")
        t.wait_for(b"never sent")
        os.kill(t.process.pid, signal.SIGINT)
        t.wait_for(b"> ")
        t.type(b"/exit\n")
        self.assertEqual(t.close(), 0)

    def test_an_interrupt_drops_a_turn_of_several_lines(self):
        t = self.start()
        for first in (b'"""never\n', b"never\\\n"):
            t.type(first)
            t.wait_for(b"> ")
            t.type(b"sent")
            t.wait_for(b"sent")
            os.kill(t.process.pid, signal.SIGINT)
            t.wait_for(b"> ")
        t.type(b"/stats\n")
        self.assertIn(b"0 prompt tokens", t.wait_for(b"seed"))
        t.type(b"/exit\n")
        self.assertEqual(t.close(), 0)

    def test_an_interrupt_acts_while_a_prompt_is_read(self):
        # The reference kernels need some fifteen seconds for this prompt, and milliseconds for one chunk of it.
        model = os.path.join(ROOT, "models", "storyteller.gguf")
        prompt = "Once upon a time there was a little dog who went to the wood. " * 110
        for command in (["generate", model, "--raw", "-p", prompt], ["run", model, "-p", prompt]):
            t = Terminal(*command, "--exact", "-t", "1", "--prefill-chunk", "8", "--ctx", "2048", "-n", "1",
                         env={"INGOT_ISA": "ref"})
            time.sleep(1)
            begin = time.monotonic()
            os.kill(t.process.pid, signal.SIGINT)
            self.assertEqual(t.process.wait(60), 130)  # said by the program itself, not killed by the signal
            self.assertLess(time.monotonic() - begin, 5)
            os.close(t.master)

    def test_progress_and_statistics_stay_off_stdout(self):
        model = tiny_model(self.folder)
        master, slave = pty.openpty()
        p = subprocess.run([INGOT, "generate", model, "--raw", "-p", "the", "-n", "3", "--temperature", "0"],
                           stdout=subprocess.PIPE, stderr=slave, timeout=60)
        os.close(slave)
        os.close(master)
        self.assertEqual(p.returncode, 0)
        self.assertNotIn(b"tok/s", p.stdout)
        self.assertNotIn(b"\x1b", p.stdout)


main()
