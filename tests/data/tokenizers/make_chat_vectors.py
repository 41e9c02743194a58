#!/usr/bin/env python3
"""Makes chat_vectors.json: chat templates and what transformers makes of them for the messages of FLUX.2.

Versions: transformers 5.24.0, Jinja2 3.1.6. Every entry: template, variables, and either "text" or "error".
"""

import json
import os

from transformers.utils.chat_template_utils import _compile_jinja_template

SYSTEM = {"role": "system", "content": [{"type": "text", "text": "Be brief."}]}
LISTED = [SYSTEM, {"role": "user", "content": [{"type": "text", "text": "a red  fox\n"}]}]
PLAIN = [{"role": "user", "content": " a 'red' fox, \u00e9\u4e2d "}]
TALK = PLAIN + [{"role": "assistant", "content": "<think>\nhm\n</think>\n\nyes"}, {"role": "user", "content": "why?"}]
QWEN = {"messages": PLAIN, "add_generation_prompt": True, "enable_thinking": False, "tools": None, "documents": None}
MISTRAL = {"messages": LISTED, "add_generation_prompt": False, "bos_token": "<s>", "eos_token": "</s>", "tools": None}

TEMPLATES = [
    # One line, as small tests write them.
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>' + '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% if not enable_thinking %}{{ '<think>\n\n</think>\n\n' }}{% endif %}{% endif %}",
    # Blocks over many lines, with white space for every rule to take.
    """{%- set state = namespace(found=false, last=messages|length - 1) %}
{%- for m in messages[::-1] %}
    {%- set at = (messages|length - 1) - loop.index0 %}
    {%- if not state.found and m.role == "user" and m.content is string and not (m.content.startswith('<x>') and m.content.endswith('</x>')) %}
        {%- set state.found = true %}
        {%- set state.last = at %}
    {%- endif %}
{%- endfor %}
{%- for m in messages %}
    {%- if m.content is string %}{%- set content = m.content %}{%- else %}{%- set content = '' %}{%- endif %}
    {%- if m.role == "user" or (m.role == "system" and not loop.first) %}
        {{- '<|im_start|>' + m.role + '\\n' + content + '<|im_end|>' + '\\n' }}
    {%- elif m.role == "assistant" %}
        {%- if '</think>' in content %}
            {%- set thought = content.split('</think>')[0].rstrip('\\n').split('<think>')[-1].lstrip('\\n') %}
            {%- set content = content.split('</think>')[-1].lstrip('\\n') %}
        {%- endif %}
        {%- if loop.index0 > state.last %}{{- '[' + thought.strip('\\n') + ']' + content }}{%- else %}{{- m.role + content }}{%- endif %}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\\n' }}
    {%- if enable_thinking is defined and enable_thinking is false %}
        {{- '<think>\\n\\n</think>\\n\\n' }}
    {%- endif %}
{%- endif %}
""",
    """{{ bos_token }}
{%- for message in messages %}
  {%- if message['role'] == 'system' -%}
    [SYSTEM_PROMPT]{% if message['content'] is string %}{{ message['content'] }}{% else %}{{ message['content'][0]['text'] }}{% endif %}[/SYSTEM_PROMPT]
  {%- elif message['role'] == 'user' -%}
    [INST]
    {%- for block in message['content'] %}
      {%- if block['type'] == 'text' %}
        {{- block['text'] }}
      {%- elif block['type'] in ['image', 'image_url'] %}
        {{- '[IMG]' }}
      {%- else %}
        {{- raise_exception('Only text and image blocks are supported in message content!') }}
      {%- endif %}
    {%- endfor %}
    {{- '[/INST]' }}
  {%- else %}
    {{- raise_exception('Only user and system roles are supported') }}
  {%- endif %}
{%- endfor %}""",
    # Text between tags, comments, and lines that hold nothing else.
    "a\n  {# note #}\nb {# in line #} c\n   {% if true %}   \n   d\n   {% endif %}\ne{{ '' }}\n",
    "x {%+ if true %} y {%+ endif %} z\n{%- if false %}no{% else -%}   yes {%- endif -%}   \n end\n\n",
    "\r\n{% for c in 'abc' %}\r\n{{ loop.index }}/{{ loop.length }}{{ c }}{{ ',' if not loop.last }}\r\n{% endfor %}",
    # Expressions.
    "{{ 1 + 2 * 3 - 4 // 3 % 2 }} {{ 7 / 2 }} {{ -7 // 2 }} {{ -7 % 3 }} {{ 'a' ~ 1 ~ none ~ true }} {{ 'ab' * 3 }} {{ [1] + [2, 'x'] }}",
    "{{ 1 if false }}|{{ 1 if false else 2 }}|{{ missing or 'd' }}|{{ missing is defined }}|{{ missing }}|{{ none }}|{{ not none }}|{{ 1 and 0 or 3 }}",
    "{{ 1 < 2 }} {{ 'a' in 'cat' }} {{ 'z' not in ['a'] }} {{ 'role' in messages[0] }} {{ 2 >= 2.0 }} {{ 1 == true }} {{ 'a' != 'b' }} {{ messages[-1].role }}",
    "{{ 'abcdef'[1:3] }} {{ 'abcdef'[::-1] }} {{ [1, 2, 3, 4][-2:] }} {{ [1,2,3][:-1] }} {{ 'abc'[5:] }} {{ (1, 2)[0] }} {{ {'a': 1, 'b': [2]}['b'][0] }} {{ {'a': 1}.a }}",
    "{{ ' x '|trim }}|{{ 'ab'|upper }}|{{ messages|length }}|{{ [3,1]|first }}|{{ 'abc'|last }}|{{ [1,2]|join('-') }}|{{ missing|default('d') }}|{{ ''|default('e', true) }}",
    "{{ {'a': [1, 2.5, none, true], 'b': 'q\"'} | tojson }} {{ 'é'|tojson }} {{ [1, 'a', none] }} {{ {'k': 'v'} }} {{ '12'|int + 1 }} {{ 'a,b'.split(',') }}",
    "{{ messages|map(attribute='role')|join(',') }} {{ messages|selectattr('role', 'equalto', 'user')|list|length }} {{ messages|rejectattr('role','equalto','user')|list|length }}",
    "{{ 'a b  c'.split() }} {{ 'xxaxx'.strip('x') }} {{ 'a-b-c'.split('-', 1) }} {{ 'aXa'.replace('X', '') }} {{ 'Abc'.lower() }} {{ 'b'.join(['x', 'y']) }} {{ messages[0].get('nope', 'd') }}",
    "{% for k, v in {'a': 1, 'b': 2}.items() %}{{ k }}={{ v }};{% endfor %}{% for x in [] %}x{% else %}none{% endfor %}{% for i in range(5) if i is odd %}{{ i }}{% endfor %}{% for i in range(3, 0, -1) %}{{ i }}{% endfor %}",
    "{% macro greet(name, mark='!') %}hi {{ name }}{{ mark }}{% endmacro %}{{ greet('a') }}{{ greet('b', mark='?') }}{% set block %}in {{ 1 }}{% endset %}{{ block|upper }}",
    "{% set x = 1 %}{% for i in [1,2] %}{% set x = i * 10 %}{{ x }}{% endfor %}{{ x }}{% if true %}{% set x = 5 %}{% endif %}{{ x }}{% set a, b = [1, 2] %}{{ a + b }}",
    "{% for i in range(6) %}{% if i == 1 %}{% continue %}{% endif %}{% if i == 4 %}{% break %}{% endif %}{{ i }}{{ loop.first }}{{ loop.previtem is defined }}{% endfor %}",
    "{% generation %}g{% endgeneration %}{{ 'it''s' }}{{ \"q\\\"\\n\" }}{{ 'a\\tb' }}{% if messages is sequence and messages[0] is mapping and 1 is number and not 'a' is none %}t{% endif %}",
    "{{ raise_exception('No ' + messages[0].role) }}",
]


def main():
    out = []
    for template in TEMPLATES:
        for variables in [QWEN, {**QWEN, "messages": TALK}, MISTRAL]:
            entry = {"template": template, "variables": variables}
            try:
                entry["text"] = _compile_jinja_template(template).render(**variables)
            except Exception as error:  # noqa: BLE001
                entry["error"] = str(error)
            out.append(entry)
    path = os.path.join(os.path.dirname(os.path.abspath(__file__)), "chat_vectors.json")
    with open(path, "w", encoding="utf-8") as file:
        json.dump(out, file, ensure_ascii=False, separators=(",", ":"))
    print(len(out), sum("error" in e for e in out), [e["error"] for e in out if "error" in e][:12], os.path.getsize(path))


if __name__ == "__main__":
    main()
