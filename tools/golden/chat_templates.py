#!/usr/bin/env python3
"""Golden renderings of chat templates by jinja2, set up as transformers does (jinja2 3.1.6, transformers 5.23).

Run: python3 tools/golden/chat_templates.py ../shared > tests/golden/chat/renderings.jsonl
Lines: {"template": path under shared/data/suites/chat-templates, "context": name, "expected": text or null (an error)}
and    {"source": template, "context": object, "expected": text or null}.
"""
import datetime
import glob
import json
import os
import sys

import jinja2
from jinja2 import nodes
from jinja2.ext import Extension, loopcontrols
from jinja2.sandbox import ImmutableSandboxedEnvironment


class Generation(Extension):
    tags = {"generation"}

    def parse(self, parser):
        line = next(parser.stream).lineno
        body = parser.parse_statements(["name:endgeneration"], drop_needle=True)
        return nodes.CallBlock(self.call_method("_same"), [], [], body).set_lineno(line)

    def _same(self, caller):
        return caller()


def environment():
    e = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=[Generation, loopcontrols])

    def raise_exception(message):
        raise jinja2.exceptions.TemplateError(message)

    def tojson(x, ensure_ascii=False, indent=None, separators=None, sort_keys=False):
        return json.dumps(x, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)

    e.filters["tojson"] = tojson
    e.globals["raise_exception"] = raise_exception
    e.globals["strftime_now"] = lambda f: datetime.datetime(2025, 7, 10, 12, 0, 0).strftime(f)
    return e


CONTEXT = {"s": "héllo Wörld ß", "n": 7, "x": 2.5, "items": [3, 1, 2], "words": ["b", "A", "c", "a"],
           "d": {"b": 1, "a": [1, 2.0, None, True], "q": "it's \"q\""}, "none": None, "t": True, "empty": [],
           "users": [{"name": "Zoë", "age": 3, "tags": ["x"]}, {"name": "adam", "age": 1}, {"name": "Bob", "age": 2}],
           "text": "line one\n  line two\n\nline four\n", "num": "42", "big": 1e16, "small": 1e-5, "neg": -7}

FEATURES = r"""
{{ s }}|{{ s|upper }}|{{ s|lower }}|{{ s|title }}|{{ s|capitalize }}|{{ s|length }}
{{ s.title() }}|{{ "they're bill's".title() }}|{{ "they're bill's friend-s (x) [y"|title }}
{{ s[1] }}|{{ s[-1] }}|{{ s[::-1] }}|{{ s[2:5] }}|{{ s[-3:] }}|{{ s[10:2:-2] }}|{{ s[:-100] }}|{{ s[100:] }}
{{ items[1:] }}|{{ items[::-1] }}|{{ items[-2] }}|{{ items[9] }}|{{ items|sort }}|{{ items|sort(reverse=true)|join(',') }}
{{ words|sort }}|{{ words|sort(case_sensitive=true) }}|{{ words|unique|list }}|{{ words|map('upper')|list }}
{{ d }}|{{ d|tojson }}|{{ d|tojson(indent=2) }}|{{ d|items|list }}|{{ d|dictsort }}|{{ d.keys()|list }}|{{ d.values()|list }}
{{ users|map(attribute='name')|join(', ') }}|{{ users|selectattr('age','gt',1)|map(attribute='name')|list }}|{{ users|sort(attribute='name')|map(attribute='age')|list }}
{{ users|rejectattr('tags','defined')|list|length }}|{{ users|selectattr('tags')|list|length }}|{{ users|map(attribute='tags', default='-')|list }}|{{ users|sum(attribute='age') }}
{{ 7 // 2 }} {{ -7 // 2 }} {{ 7 % 3 }} {{ -7 % 3 }} {{ 7 / 2 }} {{ 2 ** 10 }} {{ 2 ** -1 }} {{ 7.5 // 2 }} {{ -7.5 % 2 }} {{ 1 + 2.0 }} {{ 3 * 2 }} {{ -n }} {{ +n }} {{ -n|abs }} {{ (-n)|abs }}
{{ big }} {{ small }} {{ 1e15 }} {{ 123456789.125 }} {{ 0.1 + 0.2 }} {{ 1e300 * 1e10 }} {{ 1.0 }} {{ -0.0 }} {{ 1e22 }} {{ 5e-324 }} {{ 100.0 }} {{ 0.0001 }} {{ 0.00012345 }}
{{ 2.5|round }} {{ 3.5|round }} {{ 2.675|round(2) }} {{ 2.1|round(0,'ceil') }} {{ 2.9|round(method='floor') }} {{ 7|round }} {{ 1234.5678|round(2) }}
{{ num|int + 1 }} {{ "x"|int }} {{ "x"|int(5) }} {{ "3.7"|int }} {{ 3.99|int }} {{ -3.99|int }} {{ " 8 "|int }} {{ "1e3"|float }} {{ "z"|float(1.5) }} {{ none|int }}
{{ 'a' ~ 1 ~ none ~ true ~ 1.5 ~ [1] }}|{{ 'ab' * 3 }}|{{ [1,2] * 2 }}|{{ [1] + [2] }}|{{ (1,) + (2,3) }}|{{ () }}|{{ (1,) }}
{{ 1 < 2 < 3 }} {{ 1 < 3 < 2 }} {{ 'a' < 'b' }} {{ 'Z' < 'a' }} {{ [1,2] < [1,3] }} {{ 1 == 1.0 }} {{ true == 1 }} {{ 'a' in s }} {{ 'W' in s }} {{ 3 in items }} {{ 'b' in d }} {{ 9 not in items }}
{{ none is none }} {{ t is true }} {{ n is number }} {{ x is float }} {{ n is integer }} {{ t is integer }} {{ t is number }} {{ s is string }} {{ d is mapping }} {{ items is sequence }} {{ s is sequence }} {{ d is sequence }} {{ zz is defined }} {{ zz is iterable }} {{ n is iterable }} {{ n is odd }} {{ n is divisibleby 7 }} {{ n is divisibleby(2) }} {{ 'a' is in ['a'] }} {{ n is eq 7 }} {{ n is not eq 7 }} {{ s is callable }} {{ range is callable }}
{{ zz|default('q') }} {{ none|default('q') }} {{ none|default('q', true) }} {{ ''|d('e', boolean=true) }}
{{ text|indent }}|{{ text|indent(2, true) }}|{{ text|indent(2, blank=true) }}|{{ text|indent(width='> ') }}|{{ text|trim }}|
{{ text.split('\n') }}|{{ text.splitlines() }}|{{ text.split() }}|{{ 'a,b,,c'.split(',') }}|{{ 'a,b,,c'.rsplit(',', 1) }}|{{ 'a b c'.split(' ', 1) }}|{{ 'a<>b<>c'.split('<>')[-1] }}
{{ '  x '.strip() }}|{{ 'xxaxx'.strip('x') }}|{{ 'xxaxx'.lstrip('x') }}|{{ 'xxaxx'.rstrip('x') }}|{{ '\n\nq\n'.strip('\n') }}|{{ 'abc'|trim('a') }}
{{ 'abc'.startswith('ab') }} {{ 'abc'.startswith(('x','a')) }} {{ 'abc'.endswith('bc') }} {{ 'abc'.find('c') }} {{ 'abc'.find('z') }} {{ 'abcabc'.rfind('b') }} {{ 'abcabc'.count('bc') }} {{ 'abc'.index('b') }} {{ 'aXb'.partition('X') }} {{ 'aXbXc'.rpartition('X') }} {{ 'q'.partition('X') }} {{ 'abc'.removeprefix('a') }} {{ 'abc'.removesuffix('bc') }}
{{ 'abab'.replace('a','x') }} {{ 'abab'.replace('a','x',1) }} {{ 'ab'.replace('','-') }} {{ 'ab'|replace('b', 1) }} {{ '-'.join(['a','b']) }} {{ '12'.isdigit() }} {{ ''.isdigit() }} {{ 'aB'.isupper() }} {{ 'AB1'.isupper() }} {{ 'ab'.islower() }} {{ ' \t'.isspace() }} {{ 'ab'.isalpha() }} {{ 'a1'.isalnum() }}
{% for k, v in d.items() %}{{ loop.index }}/{{ loop.length }} {{ k }}={{ v }}{{ ', ' if not loop.last }}{% endfor %}
{% for i in items %}{{ loop.index0 }}{{ loop.revindex }}{{ loop.revindex0 }}{{ loop.first }}{{ loop.last }}{{ loop.previtem }}{{ loop.nextitem }}{{ loop.cycle('a','b') }}{{ loop.changed(i // 2) }};{% endfor %}
{% for i in items if i > 1 %}{{ i }}{{ loop.length }}{% else %}none{% endfor %}{% for i in empty %}x{% else %}none{% endfor %}
{% for i in range(3) %}{% for j in range(i) %}{{ loop.depth }}{{ i }}{{ j }} {% endfor %}{% endfor %}{{ range(5)|list }}{{ range(1,10,3)|list }}{{ range(5,0,-2)|list }}
{% for u in [{'c': [{'c': []}]}] recursive %}[{{ loop.depth }}{{ loop(u.c) }}]{% endfor %}
{% set a = 1 %}{% for i in items %}{% set a = a + i %}{{ a }}{% endfor %}{{ a }}{% set ns = namespace(v=0, w='k') %}{% for i in items %}{% set ns.v = ns.v + i %}{% endfor %}{{ ns.v }}{{ ns.w }}
{% macro m(a, b='B', c=a) %}{{ a }}{{ b }}{{ c }}{{ varargs }}{{ kwargs }}{% endmacro %}{{ m(1) }}|{{ m(1, 2) }}|{{ m(1, c=3, z=9) }}|{{ m(1,2,3,4) }}
{% macro m(a) %}<{{ caller(a) }}>{% endmacro %}{% call(x) m(5) %}c{{ x }}{% endcall %}{% macro r(i) %}{{ i }}{% if i %}{{ r(i - 1) }}{% endif %}{% endmacro %}{{ r(4) }}
{% set v %}  block {{ n }} {% endset %}[{{ v }}]{% set w | upper | trim %} q {% endset %}[{{ w }}]{% filter upper %}up {{ s }}{% endfilter %}
{% with q = 5, z = n %}{{ q + z }}{% endwith %}{{ q }}{% raw %}{{ not }} {% x %}{% endraw %}{# comment #}end
{%- if n > 5 and not none or zz %} yes {%- elif n %} mid {% else %} no {% endif -%}   x
  {% if t %}
    inside
  {% endif %}
  {{- '  kept ' -}}   tail
{% if t +%}
  plus
  {%+ endif %}
{{ [1, 'a', none, true, 1.5, {'k': (1, 2)}] }} {{ {'a': 1, 2: 'b', none: 3}|tojson }} {{ [none, true, 1.5, 'é\u2028"\n\x01']|tojson }} {{ 'é😀'|tojson(ensure_ascii=true) }}
{{ 'it\'s' }} {{ ["it's", 'q"', "b'\"", 'tab\t', 'nl\n', '\\', 'é', '\x00', '\u200b'] }}
{{ {'b': {'z': 1, 'y': []}, 'a': {}}|tojson(indent=4, sort_keys=true) }} {{ [1,[2,[]]]|tojson(indent=1) }} {{ [1,2]|tojson(separators=(',',':')) }}
{{ 'x' if n == 8 }}|{{ 'x' if n == 7 else 'y' }}|{{ ('a' if n else 'b') ~ 'c' }}|{{ not n == 7 }}|{{ n == 7 and 'ok' or 'no' }}
{{ strftime_now('%d %b %Y') }} {{ strftime_now('%Y-%m-%d %H:%M') }} {{ strftime_now('%B %-d, %A') }}
{{ words|first }} {{ words|last }} {{ empty|first }} {{ words|reverse|list }} {{ s|reverse }} {{ [3,1,2]|max }} {{ [3,1,2]|min }} {{ ['b','A']|min }} {{ [1,2,3]|sum }} {{ s|list|length }} {{ 'a<b>&"\''|e }} {{ s|string|safe }}
{{ d.get('b') }} {{ d.get('zz') }} {{ d.get('zz', 'dd') }} {{ d['b'] }} {{ d['zz'] is defined }} {{ d.a.0 }} {{ d.a[1] }} {{ d['a'][-1] }} {{ dict(a=1, b='x') }} {{ dict({'z': 1}, y=2) }}
{% set x, y = 1, 2 %}{{ x }}{{ y }}{% set (p, q) = [3, 4] %}{{ p }}{{ q }}{% for a, (b) in [[1, 2]] %}{{ a }}{{ b }}{% endfor %}
{% generation %}gen {{ n }}{% endgeneration %} {% for i in items %}{% if i == 1 %}{% continue %}{% endif %}{{ i }}{% if i == 2 %}{% break %}{% endif %}{% endfor %}
{{ 1_000 }} {{ 0x1f }} {{ 0b101 }} {{ 0o17 }} {{ 1e3 }} {{ 'a' 'b' }} {{ "\x41\u00e9\101\q" }}
{% set c = cycler('a', 'b') %}{{ c.next() }}{{ c.next() }}{{ c.next() }} {{ [1,2,3] is sameas 3 }} {{ none is sameas none }} {{ n is gt 3 }} {{ n is lessthan(3) }} {{ 'A' is upper }} {{ 'é' is lower }}
{{ 'İstanbul ǆ ŉ ﬁ Σίσυφος'|upper }} {{ 'İSTANBUL ǅ ΣΑΣ'|lower }} {{ 'ǆabc ﬁn'|capitalize }} {{ '\u00a0x\u2003'|trim }}
{{ users[0].name }}{{ users[0]['age'] }}{{ users[1].tags }}{{ users | selectattr('name', 'in', ['adam', 'Bob']) | map(attribute='name') | join('/') }} {{ [[1, 2], [3]] | map('length') | list }} {{ ['a', 'b'] | map('replace', 'a', 'z') | list }} {{ [1, 0, none, 'x'] | select | list }} {{ [1, 2, 3] | reject('odd') | list }}
{{ 'yes' if [] | select else 'no' }} {{ 'yes' if users | selectattr('zz') else 'no' }} {{ 'yes' if [] | map('upper') | list else 'no' }} {{ 'yes' if {} | items else 'no' }} {{ true | round }} {{ 2.5 is odd }} {{ 3.0 is odd }}
{{ zz.attr }}
{{ 1 + 'a' }}
{{ zz + 1 }}
{{ 1 / 0 }}
{{ raise_exception('stop') }}
{{ [1] < 'a' }}
{% if %}{% endif %}
{{ 'open }}
{% for x in %}{% endfor %}
{% unknown %}
{{ s|nofilter }}
{{ s is notest }}
{{ (1 }}
{% if x %}
{% set 1 = 2 %}
{% endfor %}
{% macro m(a) %}{% endmacro %}{{ m(1, 2) }}
{{ n() }}
{{ range(1000000) }}
{% for a, b in [[1]] %}{% endfor %}
""".strip("\n")


def cases():
    current = []
    for line in FEATURES.split("\n"):
        # A case is a line; indented lines, and those of an open block, belong to the one before.
        if current and (line.startswith("  ") or line.startswith("{{- ")):
            current[-1] += "\n" + line
        else:
            current.append(line)
    return current


def main():
    base = os.path.join(sys.argv[1], "data/suites/chat-templates")
    e = environment()

    def render(source, context):
        try:
            return e.from_string(source).render(**context)
        except Exception:  # any failure of the original is a failure here
            return None

    for path in sorted(glob.glob(base + "/*/*.jinja")):
        for context in ("simple", "system", "tool_use"):
            data = json.load(open(f"{base}/contexts/{context}.json"))
            print(json.dumps({"template": os.path.relpath(path, base), "context": context,
                              "expected": render(open(path).read(), data)}))
    for source in cases():
        print(json.dumps({"source": source, "context": CONTEXT, "expected": render(source, CONTEXT)}))


main()
