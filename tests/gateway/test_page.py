"""The chat page in headless Chromium: loads from this server alone, streams, counts tokens a second, stops."""
import os
import sys

import browser
import server

if not browser.find():
    server.skip("chromium is not installed")

S = server.Server("--ctx", "512")
B = browser.Browser()


def slow_network(on):
    """The small model writes faster than a page is drawn: the browser reads 20 KB a second, so that it can be watched."""
    B.call("Network.emulateNetworkConditions", offline=False, latency=0, uploadThroughput=-1,
           downloadThroughput=20000 if on else -1)


def answers():
    return B.run("[...document.querySelectorAll('.turn.assistant')].map(t => t.querySelector('.bubble').innerText)")


def test_page_loads_without_the_network():
    B.open(S.url("/"))
    B.wait("document.getElementById('model').textContent !== ''")
    assert B.run("document.getElementById('model').textContent") == S.model
    B.run("Promise.resolve()")
    urls = [e["params"]["request"]["url"] for e in B.events if e["method"] == "Network.requestWillBeSent"]
    assert len(urls) >= 4 and all(u.startswith((S.url("/"), "data:")) for u in urls), urls
    bad = [e for e in B.events if e["method"] == "Runtime.exceptionThrown" or
           (e["method"] == "Log.entryAdded" and e["params"]["entry"]["level"] == "error")]
    assert not bad, bad
    assert B.run("document.getElementById('send').disabled")


def test_page_streams_an_answer():
    slow_network(True)
    B.run("""(() => { window.seen = []; new MutationObserver(() => {
        const b = document.querySelector('.turn.assistant .bubble'); if (b) seen.push(b.innerText.length); })
        .observe(document.getElementById('log'), {childList: true, subtree: true, characterData: true});
        document.getElementById('prompt').focus(); document.getElementById('max-tokens').value = 240; })()""")
    B.type("Tell me a story about a girl named Lily.")
    assert not B.run("document.getElementById('send').disabled")
    B.press("Enter", 13)
    B.wait("document.querySelector('.turn.assistant') && !document.querySelector('.waiting, .writing')", 60)
    assert len(answers()) == 1 and len(answers()[0]) > 40, answers()
    grown = B.run("[...new Set(seen)].sort((a, b) => a - b)")
    assert len(grown) > 3, grown  # it came in pieces
    speed = B.run("document.querySelector('.turn.assistant .speed').textContent")
    assert "240 tokens" in speed and "tokens/s" in speed and "first after" in speed, speed
    assert B.run("document.getElementById('stop').hidden && !document.getElementById('send').hidden")
    assert B.run("document.getElementById('prompt').value") == ""


def test_page_stops():
    B.run("""(() => { document.getElementById('max-tokens').value = '';
        new MutationObserver((_, o) => { const w = document.querySelector('.turn.writing .bubble');
            if (w && w.innerText.length > 5) { o.disconnect(); document.getElementById('stop').click(); } })
        .observe(document.getElementById('log'), {childList: true, subtree: true, characterData: true, attributes: true});
        document.getElementById('prompt').focus(); })()""")
    B.type("Tell me a very long story.")
    B.run("document.getElementById('send').click()")
    B.wait("document.querySelector('.turn.assistant.stopped') && !document.querySelector('.waiting, .writing')", 60)
    assert S.blocks_return()
    assert "stopped" in B.run("[...document.querySelectorAll('.speed')].pop().textContent")


def test_page_remembers_and_starts_anew():
    slow_network(False)
    before = answers()
    B.open(S.url("/"))
    assert answers() == before and len(before) == 2
    B.run("document.getElementById('new').click()")
    assert answers() == [] and B.run("!document.getElementById('hello').hidden")


def test_page_shows_markup_and_no_injection():
    B.run("""(() => { const v = show('assistant', 'A **bold** `code`\\n\\n- one\\n- two\\n\\n```c\\nint x;\\n```\\n' +
        '<img src=x onerror="window.broken = 1"><script>window.broken = 1</script>'); })()""")
    html = B.run("[...document.querySelectorAll('.turn.assistant')].pop().querySelector('.bubble').innerHTML")
    for part in ("<strong>bold</strong>", "<code>code</code>", "<ul><li>one</li><li>two</li></ul>", "<pre><code>int x;", "&lt;img"):
        assert part in html, html
    assert not B.run("window.broken || document.querySelector('.bubble img, .bubble script')")


def test_page_fits_a_telephone():
    for width in (360, 1000):
        B.size(width, 740)
        assert B.run("document.documentElement.scrollWidth <= innerWidth"), width
        box = B.run("(() => { const r = document.getElementById('send').getBoundingClientRect(); return [r.right, r.bottom]; })()")
        assert box[0] <= width and box[1] <= 740, box


def test_page_asks_for_the_key():
    with server.Server(env={"INGOT_API_KEY": "k3y"}) as s:
        B.open(s.url("/"))
        B.wait("document.getElementById('status').textContent.includes('API key')")
        B.run("send('hello')")
        B.wait("document.querySelector('.turn.error')")
        assert B.run("!document.getElementById('settings').hidden")
        B.run("document.getElementById('key').value = 'k3y'; document.getElementById('max-tokens').value = 5; send('hello')")
        B.wait("document.querySelector('.turn.assistant:not(.error):not(.waiting):not(.writing)')", 30)
        # Remembered through a reload of this tab, and nowhere else.
        assert "k3y" not in B.run("JSON.stringify(localStorage)")
        B.open(S.url("/"))
        B.open(s.url("/"))
        assert B.run("document.getElementById('key').value") == "k3y"


try:
    with S:
        server.run(dict(globals()))
finally:
    B.close()
