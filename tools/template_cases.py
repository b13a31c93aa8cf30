"""Templates written for this project, one or more for each feature of the interpreter, and what they are rendered with.

All are rendered with VARIABLES, named as in ChatTemplate::Options. Those that Jinja refuses are there too: the interpreter
must refuse them as well.
"""

TREE = {
    "name": "root", "n": 3, "f": 0.1, "none": None, "yes": True, "text": "Ab c\n<d> 'q' \"é\" 😀\\",
    "list": [3, 1, 2], "empty": [], "words": ["b", "A", "a", "B", "c"], "nested": {"x": {"y": [1, {"z": "deep"}]}},
    "rows": [{"id": 2, "tag": "x", "on": True}, {"id": 1, "tag": "Y", "on": False}, {"id": 3, "tag": "x", "on": True}],
    "items": "shadows a method", "map": {"b": 1, "A": 2, "c": [None, False, 1.5]},
}
VARIABLES = {"messages": [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "yo"}],
             "extra": {"t": TREE, "s": "Hello World", "zero": 0, "many": "a,b,,c", "blank": "  \t x y \n"},
             "bos_token": "<s>"}


def expressions():
    """One expression a line, each printed between bars."""
    text = r"""
1 + 2 * 3 - 4
(1 + 2) * 3
7 // 2
-7 // 2
7 % 3
-7 % 3
7 % -3
7 / 2
6 / 2
2 ** 10
2 ** -1
2 ** 3 ** 2
-2 ** 2
1.5 + 1
0.1 + 0.2
1e3
1_000
1.0e-5
123456789012345680.0
1e16
1e15
0.00001
0.0001
5.0 // 2
-5.0 % 3
7 // -2.0
true + true
1 / 0
1 % 0
1.0 // 0
9223372036854775807
9223372036854775806 + 1
"a" + "b"
"a" + 1
1 + "a"
"ab" * 3
3 * "ab"
"ab" * -1
[1] * 2
[1] + [2]
[1] + (2,)
(1,) + (2, 3)
"a" ~ 1 ~ none ~ true ~ 1.0 ~ [1, "x"] ~ missing
1 ~ 2 + 3 ~ 4
1 < 2 < 3
1 < 3 < 2
1 == 1.0
1 == true
"1" == 1
none == false
"a" < "b"
"a" < 1
[1, 2] < [1, 3]
[1, 2] < [1]
(1, 2) == (1, 2)
(1, 2) == [1, 2]
{"a": 1} == {"a": 1.0}
missing == missing
missing == none
missing < 1
1 in [1, 2]
3 in [1, 2]
"ell" in s
1 in "1"
"a" in {"a": 1}
"a" not in {"a": 1}
not 1 in [2]
1 in missing
1 in none
1 in 5
true and 0
0 or "x"
"" or missing or 5
not ""
not not 1
1 if true else 2
1 if false else 2
1 if false
(1 if false) is defined
1 if true else 2 if false else 3
"a" if 0 else "b" if 0 else "c"
-5
+5
-"a"
- 3 | abs
-3 | abs
not true is true
[]
[1, 2.0, "three", none, true, [], {}]
[1, 2,]
()
(1,)
(1, 2)
(1)
{}
{"a": 1, 'b': [2], 3: "c", none: 1.5, true: 0}
{"a": 1, "a": 2}
{[1]: 2}
{(1, 2): 3}[(1, 2)]
"it's"
'say "hi"'
'both \' and "'
["it's", 'say "hi"', 'both \' and "']
["\n\t\r\\\x00\x7f\x80\u00e9\u200b\u4e2d\U0001f600\ud7ff"]
["\101\60\0"]
"\d\q\/"
"a" "b" 'c'
"\u12"
"\N{DASH}"
"\é"
t
t.name
t["name"]
t.nested.x.y[1].z
t.nested.x["y"][0]
t["nested"]["x"]["y"][1]["z"]
t.missing
t.missing is defined
t.missing.deeper
t["missing"]
t["items"]
t.keys() | list
t.map.items() | list
t.map.values() | list
t.map.get("b")
t.map.get("zz")
t.map.get("zz", "dflt")
t.map.get("zz", default=1)
t.map.items()[0]
t.map["b"]
t.map[1]
t.map.update({"z": 1})
t.map.pop("b")
t.map.pop
t.list.append(4)
t.list.index(1)
t.list.index(9)
t.list.count(1)
t.list[0]
t.list[-1]
t.list[3]
t.list["0"]
t.list.0
t.list[1:]
t.list[:-1]
t.list[::-1]
t.list[::2]
t.list[5:]
t.list[-2:]
t.list[:0]
t.list[::0]
t.list[2:0:-1]
t.list[:100]
t.list[true]
t.list[1.0]
t.words[1:4:2]
s[0]
s[-1]
s[99]
s[1:4]
s[::-1]
s[-5:]
t.text[-3:]
t.text[20]
(1, 2, 3)[1:]
missing[0]
missing.x
missing()
missing[1:]
none.x
none[0]
t()
s()
s.upper()
s.lower()
s.title()
s.capitalize()
"straße ŉ ﬁx ǅ İ".upper()
"ÀÉ İ Σ".lower()
"they're bill's friends 3rd éa".title()
"ßa ﬁ".title()
"ÀB cD".capitalize()
blank.strip()
blank.lstrip()
blank.rstrip()
"xxhixx".strip("x")
"abcba".strip("ab")
"abcba".lstrip("ab")
"abcba".rstrip("ab")
"x".strip(none)
"x".strip(1)
"\u00a0\u2003x\x1c".strip()
many.split(",")
many.split(",", 1)
many.rsplit(",", 1)
many.split(",", maxsplit=2)
many.split(sep=",")
many.split("")
"".split(",")
" a  b c ".split()
" a  b c ".split(none, 1)
" a  b c ".rsplit(none, 1)
"".split()
"a\nb\r\nc\rd\x0be\u2028f\n".splitlines()
"a\nb\n".splitlines(true)
"a=b=c".partition("=")
"a=b=c".rpartition("=")
"abc".partition("=")
"abc".rpartition("=")
s.startswith("Hell")
s.startswith("hell")
s.startswith(("x", "H"))
s.startswith(["H"])
s.endswith("World")
s.endswith(("x", "d"))
s.replace("l", "L")
s.replace("l", "L", 1)
s.replace("", "-")
"".replace("", "-")
s.replace("l", 1)
s.find("o")
s.find("z")
s.rfind("o")
s.index("z")
"é😀x".find("x")
s.count("l")
s.count("")
", ".join(["a", "b"])
", ".join([1])
"-".join("abc")
"pre-x".removeprefix("pre-")
"x.py".removesuffix(".py")
"ABC".isupper()
"A1".isupper()
"abc".islower()
"1".islower()
"12".isdecimal()
"ab".isalpha()
"a1".isalpha()
" \t".isspace()
"".isspace()
s.nosuch
s.__class__
s.__class__.x
s.upper is callable
s.upper is defined
s.strip(1, 2)
s.strip(z=1)
5 | string
t.f | string
s | length
"é😀" | length
t.list | length
t | count
5 | length
none | length
missing | length
missing | default("d")
missing | default
missing | d("d")
"" | default("d")
"" | default("d", true)
0 | default("d", boolean=true)
none | default("d")
s | upper
s | lower
5 | upper
none | lower
missing | upper
s | title
"foo-bar (baz) [qux] {x} <y> it's" | title
"hELLO wORLD" | capitalize
blank | trim
"xxaxx" | trim("x")
5 | trim
none | trim
missing | trim
s | replace("o", "0")
s | replace("o", "0", 1)
s | replace(old="o", new="0")
123 | replace(2, 4)
s | replace("o")
s | first
s | last
[] | first
[] | last
t.list | first
t.list | last
t | first
missing | first
none | first
t.list | join
t.list | join(", ")
t.list | join(d="-")
t.rows | join("|", attribute="id")
t.rows | join("|", "tag")
"abc" | join("-")
none | join
missing | join
[none, true, 1.0] | join(" ")
t.list | list
"ab" | list
t.map | list
none | list
missing | list
(1, 2) | list
t.list | sort
t.list | sort(reverse=true)
t.words | sort
t.words | sort(case_sensitive=true)
t.words | sort(true)
t.rows | sort(attribute="id") | map(attribute="id") | list
t.rows | sort(attribute="tag,id", reverse=true) | map(attribute="id") | list
[1, "a"] | sort
[[2, 1], [1, 5]] | sort
t.rows | map(attribute="tag") | list
t.rows | map(attribute="nope") | list
t.rows | map(attribute="nope", default="-") | list
t.rows | map("length") | list
t.words | map("upper") | join
t.words | map("replace", "a", "z") | list
t.words | map("nosuch") | list
[] | map("nosuch") | list
t.rows | selectattr("on") | map(attribute="id") | list
t.rows | selectattr("tag", "equalto", "x") | list | length
t.rows | rejectattr("on") | map(attribute="id") | list
t.rows | rejectattr("id", "lt", 3) | map(attribute="id") | list
t.rows | selectattr("nope", "defined") | list
t.rows | selectattr | list
[0, 1, "", "x", none] | select | list
[0, 1, 2, 3] | select("odd") | list
[0, 1, 2, 3] | reject("odd") | list
[0, 1, 2, 3] | select("gt", 1) | list
[0, 1, 2, 3] | select("in", [1, 3]) | list
[0, 1] | select("nosuch") | list
t.list | select("odd") | first
t.list | select("odd") | length
t.words | unique | list
t.words | unique(true) | list
t.rows | unique(attribute="tag") | map(attribute="id") | list
[1, 1.0, true, "1"] | unique | list
[[1], [1]] | unique | list
t.list | reverse | list
s | reverse
t.map | items | list
missing | items | list
5 | items | list
t.map | dictsort
t.map | dictsort(true)
t.map | dictsort(reverse=true)
{"a": 2, "b": 1} | dictsort(by="value")
{"a": 2} | dictsort(by="nope")
[1] | dictsort
t.list | sum
t.rows | sum(attribute="id")
t.list | sum(start=10)
["a"] | sum
t.list | min
t.list | max
t.words | max
t.rows | max(attribute="id")
[] | max
[1, 2, 3, 4, 5] | batch(2) | list
[1, 2, 3] | batch(2, "-") | list
-5 | abs
-5.5 | abs
"a" | abs
2.5 | round
3.5 | round
2.675 | round(2)
5 | round
2.1 | round(method="ceil")
-2.1 | round(0, "floor")
2.1 | round(method="nope")
"42" | int
" -42 " | int
"4.9" | int
"x" | int
"x" | int(7)
"x" | int(default=7)
"ff" | int(0, 16)
4.9 | int
-4.9 | int
true | int
none | int
missing | int
[] | int
"1e3" | int
"3.5" | float
"x" | float
"x" | float(1.5)
3 | float
none | float
"nan" | float
"inf" | float
"a\nb\n\nc" | indent
"a\nb\n\nc" | indent(2, true)
"a\nb\n\nc" | indent(2, blank=true)
"a\nb" | indent("> ")
"<a> & 'b' \"c\"" | e
"<a>" | escape | e
"<a>" | safe
("<a>" | safe) + "<b>"
"<a>" + ("<b>" | safe)
("<a>" | safe) ~ "<b>"
("<a>" | safe).upper() + "<"
("<a>" | safe) + ("<" | safe)
("<a>" | safe) == "<a>"
("<a>" | safe) is string
"<a>" | safe is escaped
[("<a>" | safe)]
[("<a>" | safe) | last]
[s] | indent
t | tojson
t | tojson(indent=2)
t | tojson(indent=2) | length
t.text | tojson
t.text | tojson(ensure_ascii=true)
"\x7f\x1f\u2028😀" | tojson
"\x7f\x1f\u2028😀" | tojson(true)
t.map | tojson(separators=(",", ":"))
t.map | tojson(sort_keys=true)
{"b": {"d": [], "c": {}}, "a": [1, [2]]} | tojson(indent=4, sort_keys=true)
[] | tojson(indent=2)
{1: 2, none: 3, true: 4, 1.5: 5} | tojson
(1, 2) | tojson
missing | tojson
[missing] | tojson
t.map.items() | tojson
1.0 | tojson
1e100 | tojson
none | tojson
"a" | tojson("x", "y", 1, 2, 3)
t | attr("name")
s | nosuch
s | upper | lower | title
s|upper~s|lower
range(3) | list
range(1, 4) | list
range(5, 0, -2) | list
range(3)[1]
range(3) | length
range(10)[2:5] | list
range(0, 3, 0)
range(1000000)
range("a")
dict(a=1, b=2)
dict({"a": 1}, b=2)
dict([("a", 1)])
namespace(a=1).a
namespace(a=1).b
namespace({"a": 1}).a
namespace(_a=1)._a
raise_exception("no")
strftime_now("%Y-%m-%d %H:%M:%S")
strftime_now("%d %b %Y, %A %B %-d %j %p %I %y %%")
strftime_now(1)
bos_token
eos_token
eos_token is defined
tools
tools is none
documents is none
add_generation_prompt
messages
messages | length
messages[0].role
messages[-1]["content"]
messages[5]
messages[5].role
1 is defined
missing is defined
missing is not defined
missing is undefined
none is none
missing is none
0 is none
true is boolean
1 is boolean
true is true
1 is true
false is false
0 is false
1 is integer
true is integer
1.0 is integer
1.0 is float
1 is number
true is number
"1" is number
"a" is string
1 is string
missing is string
{} is mapping
[] is mapping
[] is sequence
(1,) is sequence
"a" is sequence
{} is sequence
range(1) is sequence
t.map.items() is sequence
missing is sequence
1 is sequence
none is sequence
[] is iterable
"a" is iterable
{} is iterable
range(1) is iterable
t.map.items() is iterable
missing is iterable
1 is iterable
none is iterable
range is callable
s is callable
missing is callable
3 is odd
4 is odd
4 is even
-3 is odd
3.0 is odd
"a" is odd
9 is divisibleby 3
9 is divisibleby(2)
9 is divisibleby 0
"abc" is lower
"Abc" is lower
"ABC" is upper
"1" is upper
1 is eq 1
1 is equalto 1
1 is ne 2
1 is lt 2
1 is gt 2
1 is le 1
1 is ge 2
1 is in [1, 2]
"a" is in "abc"
none is sameas none
1 is sameas 1
"upper" is filter
"nosuch" is filter
"odd" is test
1 is nosuch
1 is not odd
1 is not not odd
not 1 is odd
1 is odd is even
1 is odd and 2 is even
1 is odd or x
s is string and s | length > 3
s is defined and s
1 if s is defined else 2
[1, 2, 3][1]
{"a": {"b": 2}}.a.b
"abc"[1]
(1, 2)[0]
[[1, 2], [3]][0][1]
s.split(" ")[0].upper()
s.split(" ") | map("lower") | join("-")
{"get": 1}["get"]
{"a": 1}.a.b.c
x.y
loop
loop.index
varargs
caller()
[x for x in [1]]
lambda x: x
1 +
1 + + 2
1 = 2
a b
a..b
a.
[1
(1
{1}
{"a" 1}
"unterminated
1 if
f(a=1, 2)
f(a=1, a=2)
f(*[1])
f(**{})
"""
    return [line for line in text.split("\n") if line]


TEMPLATES = [f"|{{{{ {e} }}}}|" for e in expressions()] + [
    # output and white space
    "",
    "plain",
    "a\n",
    "a\n\n",
    "a\r\nb\rc\n",
    "{{ 1 }}\n{{ 2 }}\n",
    "  {{ 1 }}  \n  {{ 2 }}\n",
    "a  {{- 1 -}}  b",
    "a {{+ 1 }} b",
    "{% if 1 %}\nx\n{% endif %}\ny",
    "  {% if 1 %}  \n  x\n  {% endif %}  \ny",
    "a {% if 1 %} b {% endif %} c",
    "a\n   {%- if 1 -%}\n   b\n   {%- endif -%}\n  c",
    "a\n   {%+ if 1 +%}\n   b\n   {%+ endif +%}\n  c",
    "{%- if 1 %} \n x{% endif -%} \n y",
    "x\n\n  {% set a = 1 %}\n\ny",
    "{# c #}\nx",
    "  {# c #}\nx",
    "a {# c #} b",
    "a {#- c -#} b",
    "a\n  {#+ c +#}\n b",
    "{# {{ 1 }} {% x %} #}y",
    "{#-#}x",
    "{##}x",
    "{# open",
    "{{ '#}' }}{# {{ '#}' }}",
    "\t{% if 1 %}\t\nx{% endif %}",
    "\x0b {% if 1 %}x{% endif %}",
    "\u00a0{% if 1 %}x{% endif %}",
    "{% if 1 %}\r\nx{% endif %}",
    "x {%- if 1 %}y{% endif %}\n\n",
    "a\x1c {{- 1 }}",
    "{{ 1 }}\n\n",
    "{% raw %}{{ x }}{% y %}{# z #}{% endraw %}",
    "a\n  {% raw %}\n  b\n  {% endraw %}\nc",
    "a {%- raw -%} b {%- endraw -%} c",
    "{% raw %}x",
    "{% raw +%}x{% endraw %}",
    "a\n {%+ raw %} x{% endraw +%}\ny",
    "{% rawx %}{% endraw %}",
    "{{ '{{' }}{{ '}}' }}{{ '%}' }}",
    "{{ {'a': {'b': 1}}}}",
    "{{ {'a': 1}['a']}}",
    "{ { 1 } }",
    "{",
    "{{",
    "{%",
    "}}",
    "%}",
    "{{ }}",
    "{% %}",
    "{{ 1 %}",
    "{% if 1 }}",
    "{{ 1",
    "{%- -%}",
    "{{-1}}",
    "{{- -1 -}}",
    "{{ 1 -}}\n\n x",
    "{{ 'a' -}} {{- 'b' }}",
    "{{1}}{{2}}",
    "a{{ '' }}b",
    "{{ none }}|{{ true }}|{{ missing }}",
    # if
    "{% if a %}1{% elif s %}2{% else %}3{% endif %}",
    "{% if a %}1{% elif b %}2{% endif %}",
    "{% if not a %}1{% endif %}",
    "{% if s and t and not zero %}1{% else %}0{% endif %}",
    "{% if s == 'Hello World' and (zero or t.n > 2) %}ok{% endif %}",
    "{% if 1, 2 %}t{% endif %}",
    "{% if %}{% endif %}",
    "{% if 1 %}",
    "{% if 1 %}{% else %}{% else %}{% endif %}",
    "{% if 1 %}{% endfor %}",
    "{% endif %}",
    "{% if 1: %}x{% endif %}",
    "{% if zero %}{% elif zero %}{% elif 1 %}x{% elif 1 / 0 %}{% else %}y{% endif %}",
    "{% if zero %}{% set q = 1 %}{% else %}{% set q = 2 %}{% endif %}{{ q }}",
    # for
    "{% for x in t.list %}{{ x }},{% endfor %}",
    "{% for x in t.empty %}{{ x }}{% else %}none{% endfor %}",
    "{% for x in missing %}{{ x }}{% else %}none{% endfor %}",
    "{% for x in none %}{% endfor %}",
    "{% for x in 5 %}{% endfor %}",
    "{% for k in t.map %}{{ k }};{% endfor %}",
    "{% for k, v in t.map.items() %}{{ k }}={{ v }};{% endfor %}",
    "{% for k, v in t.map | items %}{{ k }}={{ v }};{% endfor %}",
    "{% for (a, b), c in [((1, 2), 3)] %}{{ a }}{{ b }}{{ c }}{% endfor %}",
    "{% for a, b in [(1, 2, 3)] %}{% endfor %}",
    "{% for a, b in [1] %}{% endfor %}",
    "{% for a, b in ['xy'] %}{{ a }}{{ b }}{% endfor %}",
    "{% for a, in [(1,)] %}{{ a }}{% endfor %}",
    "{% for c in 'é😀x' %}[{{ c }}]{% endfor %}",
    "{% for x in 1, 2, 3 %}{{ x }}{% endfor %}",
    "{% for x in [1, 2, 3] if x != 2 %}{{ loop.index }}:{{ x }} {% endfor %}",
    "{% for x in [1, 2] if x > 5 %}{{ x }}{% else %}no{% endfor %}",
    "{% for x in t.rows if x.on and x.id > 2 %}{{ x.id }}{% endfor %}",
    "{% for x in 'abcd' %}{{ loop.index }}{{ loop.index0 }}{{ loop.revindex }}{{ loop.revindex0 }}{{ loop.first }}{{ loop.last }}{{ loop.length }}{{ loop.depth }}{{ loop.depth0 }} {% endfor %}",
    "{% for x in 'abc' %}{{ loop.previtem }}<{{ x }}>{{ loop.nextitem }} {% endfor %}",
    "{% for x in 'ab' %}{{ loop.previtem is defined }}{{ loop.nextitem is defined }}{% endfor %}",
    "{% for x in 'ab' %}{{ loop.nope }}{% endfor %}",
    "{% for x in 'ab' %}{{ loop['index'] }}{% endfor %}",
    "{% for x in 'ab' %}{% for y in 'cd' %}{{ loop.index }}{% endfor %}{{ loop.index }}{% endfor %}",
    "{% for x in 'ab' %}{% set outer = loop %}{% for y in 'cd' %}{{ outer.index }}{{ loop.index }} {% endfor %}{% endfor %}",
    "{% for x in range(5) %}{% if x == 1 %}{% continue %}{% endif %}{% if x == 3 %}{% break %}{% endif %}{{ x }}{% endfor %}",
    "{% for x in [1, 2] %}{% for y in [1, 2] %}{% if y == 2 %}{% break %}{% endif %}{{ x }}{{ y }}{% endfor %}{% endfor %}",
    "{% break %}",
    "{% for x in [] %}{% else %}{% break %}{% endfor %}",
    "{% for x in [1] %}",
    "{% for x [1] %}{% endfor %}",
    "{% for in [1] %}{% endfor %}",
    "{% for 1 in [1] %}{% endfor %}",
    "{% for x.y in [1] %}{% endfor %}",
    "{% for true in [1] %}{% endfor %}",
    "{% for x in [3] %}{% endfor %}{{ x is defined }}",
    "{% for loop in [1] %}{{ loop }}{% endfor %}",
    "{% for i in [1, 2, 3] | reverse %}{{ loop.last }}{{ i }}{% endfor %}",
    "{% for m in messages[::-1] %}{{ m.role }} {% endfor %}",
    "{% for x in t.rows | selectattr('on') %}{{ loop.index }}/{{ loop.length }} {% endfor %}",
    "{% set g = [1, 2] | map('string') %}{{ g | list }}{{ g | list }}{{ 1 if g else 2 }}",
    "{% set g = [1, 2, 3] | select %}{{ g | first }}{{ g | list }}",
    "{% set g = [1, 2, 3] | select %}{{ 2 in g }}{{ g | list }}",
    # set and scopes
    "{% set x = 1 %}{{ x }}",
    "{% set x, y = 1, 2 %}{{ x }}{{ y }}",
    "{% set x = 1, 2 %}{{ x }}",
    "{% set (x, y) = [1, 2] %}{{ y }}{{ x }}",
    "{% set x, y = [1] %}",
    "{% set x = %}",
    "{% set 1 = 2 %}",
    "{% set none = 2 %}",
    "{% set x.y = 2 %}",
    "{% set t.name = 2 %}",
    "{% set t['name'] = 2 %}",
    "{% set x = 1 %}{% for i in [1, 2] %}{{ x }}{% set x = i * 10 %}{{ x }} {% endfor %}{{ x }}",
    "{% set x = 1 %}{% if 1 %}{% set x = 2 %}{% endif %}{{ x }}",
    "{% for i in [1, 2] %}{{ y }}{% set y = i %}{{ y }}{% endfor %}",
    "{% set ns = namespace(n=0, s='') %}{% for i in [1, 2, 3] %}{% set ns.n = ns.n + i %}{% set ns.s = ns.s ~ i %}{% endfor %}{{ ns.n }}{{ ns.s }}",
    "{% set ns = namespace() %}{% set ns.x = 1 %}{% set ns.y = ns.x + 1 %}{{ ns.y }}{{ ns.z is defined }}",
    "{% set ns = namespace(a=[]) %}{% set ns.a = ns.a + [1] %}{{ ns.a }}",
    "{% set ns = namespace(a=1) %}{% set ns.a, b = 5, 6 %}{{ ns.a }}{{ b }}",
    "{% set x %}a{{ 1 }}b{% endset %}[{{ x }}]",
    "{% set x | upper | trim %} ab {% endset %}[{{ x }}]",
    "{% set x | replace('a', 'b') %}aa{% endset %}{{ x }}",
    "{% set x %}{% set y = 1 %}{{ y }}{% endset %}{{ x }}{{ y is defined }}",
    "{% set x %}",
    "{% set ns = namespace(v='') %}{% set ns.v %}block{% endset %}{{ ns.v }}",
    "{% set messages = messages[1:] %}{{ messages | length }}",
    "{% set loop = 5 %}{{ loop }}",
    "{% with a = 1, b = s %}{{ a }}{{ b }}{% endwith %}{{ a is defined }}",
    "{% set a = 1 %}{% with a = 2, b = a %}{{ a }}{{ b }}{% endwith %}{{ a }}",
    "{% with %}{% set z = 1 %}{% endwith %}{{ z is defined }}",
    "{% filter upper %}ab{{ s }}{% endfilter %}",
    "{% filter replace('a', 'b') | upper %}aa{% endfilter %}",
    "{% filter length %}x{% endfilter %}",
    "{% filter %}x{% endfilter %}",
    "{% filter nosuch %}x{% endfilter %}",
    # macros
    "{% macro m(a, b=2) %}{{ a }}{{ b }};{% endmacro %}{{ m(1) }}{{ m(1, 3) }}{{ m(b=5, a=4) }}{{ m() }}",
    "{% macro m(a) %}{% endmacro %}{{ m(1, 2) }}",
    "{% macro m(a) %}{% endmacro %}{{ m(z=2) }}",
    "{% macro m(a) %}{{ a is defined }}{% endmacro %}{{ m() }}",
    "{% macro m(a) %}{{ a.x }}{% endmacro %}{{ m() }}",
    "{% macro m(a=1, b) %}{% endmacro %}",
    "{% macro m(a, a2=a) %}{{ a2 }}{% endmacro %}{{ m(7) }}",
    "{% macro m() %}{{ varargs }}{{ kwargs }}{% endmacro %}{{ m(1, 2, x=3) }}",
    "{% macro m() %}{{ varargs | length }}{% endmacro %}{{ m(1, x=3) }}",
    "{% macro m(a) %}{{ kwargs.z }}{% endmacro %}{{ m(1, z=3) }}",
    "{% macro m() %}  x\n  {%- endmacro %}[{{ m() }}]",
    "{% macro f(n) %}{% if n > 0 %}{{ n }}{{ f(n - 1) }}{% endif %}{% endmacro %}{{ f(5) }}",
    "{% macro f(n) %}{{ f(n) }}{% endmacro %}{{ f(1) }}",
    "{% set x = 1 %}{% macro m() %}{{ x }}{% set x = 5 %}{{ x }}{% endmacro %}{% set x = 2 %}{{ m() }}{{ x }}",
    "{% macro m() %}{{ later }}{% endmacro %}{% set later = 3 %}{{ m() }}",
    "{% macro m() %}{{ s }}{{ bos_token }}{% endmacro %}{{ m() }}",
    "{% for i in [1, 2] %}{% macro m() %}{{ i }}{% endmacro %}{{ m() }}{% endfor %}{{ m is defined }}",
    "{% macro a() %}A{% endmacro %}{% macro b() %}{{ a() }}B{% endmacro %}{{ b() | lower }}",
    "{% macro m(x) %}{% for i in x %}{{ i }}{% if not loop.last %},{% endif %}{% endfor %}{% endmacro %}{{ m([1, 2]) }}",
    "{{ m() }}{% macro m() %}{% endmacro %}",
    "{% macro m() %}x{% endmacro %}{{ m.name }}{{ m is callable }}{{ m() is string }}",
    "{% macro m() %}",
    "{% macro m %}{% endmacro %}",
    "{% macro %}{% endmacro %}",
    "{% macro m(1) %}{% endmacro %}",
    "{% macro m(a %}{% endmacro %}",
    "{% if 1 %}{% macro m() %}x{% endmacro %}{% endif %}{{ m() }}",
    "{% macro w(t) %}<{{ t }}>{{ caller() }}</{{ t }}>{% endmacro %}{% call w('b') %}in{{ s }}{% endcall %}",
    "{% macro w() %}{{ caller(1, 2) }}{% endmacro %}{% call(a, b) w() %}{{ a }}-{{ b }}{% endcall %}",
    "{% macro w() %}{{ caller is defined }}{% endmacro %}{{ w() }}{% call w() %}{% endcall %}",
    "{% macro w() %}x{% endmacro %}{% call w() %}y{% endcall %}",
    "{% call 5 %}{% endcall %}",
    "{% set ns = namespace(f=none) %}{% macro m() %}hi{% endmacro %}{% set ns.f = m %}{{ ns.f() }}",
    # the rest
    "{% generation %}a{{ s }}{% set q = 1 %}{% endgeneration %}{{ q is defined }}",
    "{% for m in messages %}{% if m.role == 'assistant' %}{% generation %}{{ m.content }}{% endgeneration %}{% else %}{{ m.content }}{% endif %}{% endfor %}",
    "{% generation %}",
    "{{ raise_exception('Roles must alternate, got ' + messages[0].role) }}",
    "{% if 0 %}{{ raise_exception('x') }}{% endif %}ok",
    "{% if 0 %}{{ 1 | nosuch }}{{ 1 is nosuch }}{% endif %}ok",
    "{% include 'x' %}",
    "{% extends 'x' %}",
    "{% import 'x' as y %}",
    "{% from 'x' import y %}",
    "{% do x %}",
    "{% nosuch %}",
    "{% trans %}{% endtrans %}",
    "{{ self.x() }}",
    "{{ ''.__class__.__mro__ }}",
    "{{ (1).__add__(2) }}",
    "{{ messages.__len__() }}",
    "{{ namespace.__init__ }}",
    "{{ range.__globals__.x }}",
    "{{ t.text }}",
    "{{ t['text'] | tojson }}",
    "{{ [t.text] }}",
    "{{ {'a': t.text} }}",
    "{{ s if s else '' }}{{ '\n' }}{{ \"\n\" }}",
    "{{ s\n|\nupper }}",
    "{%\nif\n1\n%}x{%endif%}",
    "{{ 'a' if true }}{{ 'b' if false }}",
    "{{ messages | map(attribute='content') | join('+') }}",
    "{% set a = [1, 2, 3] %}{{ a[1:] + a[:1] }}",
    "{{ 'x' * 10 }}{{ [0] * 3 }}",
    "{{ -1 ** 2 }}{{ (-1) ** 2 }}",
    "{{ 1.5 | int }}{{ '7' | int + 1 }}",
    "{{ 'a' ~ 'b' | upper }}",
    "{{ ('a' ~ 'b') | upper }}",
    "{{ 1 + 1 | string }}",
    "{{ messages[0]['content'].split('h')[1] }}",
    "{{ not s is defined }}",
    "{{ s is not defined or s }}",
    "{{ (messages | first).role }}{{ (messages | last)['role'] }}",
    "{{ {'a': 1, 'b': 2}.items() | map('first') | list }}",
    "{% for k, v in {'z': 1, 'a': 2} | dictsort %}{{ k }}{{ v }}{% endfor %}",
    "{% set d = dict(messages[0], extra=1) %}{{ d }}{{ messages[0] }}",
    "{{ 'ÄÖ' | lower }}{{ 'äß' | upper }}",
    "{{ 10 | string | length }}",
    "{{ [1, [2, [3]]] | string }}",
    "{{ '%d' | int }}",
    "{{ '\\\\' }}",
    "{{ true }}{{ True }}{{ none }}{{ None }}{{ false }}{{ False }}",
    "{{ TRUE is defined }}",
    "é{{ 'é' }}中",
    "{{ élan is defined }}",
    "{{ 1a }}",
    "{{ 007 }}",
    "{{ 0 }}{{ 00 }}",
    "{{ 1__0 }}",
    "{{ 1.e5 }}",
    "{{ 1.x }}",
    "{{ .5 }}",
    "{{ $ }}",
    "{{ a ! b }}",
    "{{ a ; b }}",
    "{{ a & b }}",
    "{{ [1)] }}",
    "{{ ) }}",
]
