// A conversation, as JSON, through a template with the constructions of published ones.
#include <cstdint>
#include <cstdlib>
#include <string_view>

#include "awq/error.h"
#include "text/chat_template.h"
#include "text/marked_cases.h"
#include "text/utf8.h"

namespace {

constexpr const char* kTemplate = R"({%- macro call(c) -%}
{%- set c = c.function if c.function else c -%}
<call>{"name": "{{ c.name }}", "arguments": {{ c.arguments if c.arguments is string else c.arguments | tojson(indent=2) }}}</call>
{%- endmacro -%}
{%- set ns = namespace(last=messages | length - 1, system='', seen=[]) -%}
{%- if messages and messages[0].role == 'system' -%}{%- set ns.system = messages[0].content | trim -%}{%- set messages = messages[1:] -%}{%- endif -%}
{%- for m in messages[::-1] -%}{%- if m.role == 'user' and m.content is string and not m.content.startswith('<r>') -%}{%- set ns.last = loop.revindex0 -%}{%- break -%}{%- endif -%}{%- endfor -%}
{%- if tools -%}{%- for t in tools -%}{{ t | tojson(ensure_ascii=true) }}{{ t.function.parameters.properties | dictsort | list if t.function and t.function.parameters }}{%- endfor -%}{%- endif -%}
{%- for m in messages -%}
{%- if m.role not in ['user', 'assistant', 'tool'] -%}{{- raise_exception('unexpected role ' ~ m.role) -}}{%- endif -%}
<{{ m.role | title }}>{%- if m.content is string -%}{%- set text = m.content -%}{%- if '</think>' in text -%}{%- set text = text.split('</think>')[-1].lstrip('\n') -%}{%- endif -%}{{ text | replace('\r', '') | indent(2, true) }}
{%- elif m.content is iterable and m.content is not mapping -%}{%- for p in m.content | selectattr('type', 'equalto', 'text') -%}{{ p['text'] | upper }}{{ loop.index }}/{{ loop.length }}{{ ', ' if not loop.last }}{%- endfor -%}{%- else -%}{{ m.content | default('none', true) }}{%- endif -%}
{%- for c in m.tool_calls or [] -%}{{ call(c) }}{%- endfor -%}{{ m.keys() | list | sort | join(',') }}{{ m | items | first | string }}
{%- endfor -%}{{ ns.system[:20] }}{{ messages | map(attribute='role') | unique | list }}{{ messages | groupby('role') | length }})";

awq::ChatTemplate::Options small_options() {
  awq::ChatTemplate::Options o;
  o.add_generation_prompt = true;
  o.max_work = 500000;
  o.max_output = 100000;
  return o;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static const awq::ChatTemplate t{std::string(kTemplate)};
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  nlohmann::ordered_json j = nlohmann::ordered_json::parse(text, nullptr, false);
  if (j.is_discarded()) return 0;
  awq::ChatTemplate::Options options = small_options();
  if (j.is_object() && j.contains("tools")) options.tools = j["tools"];
  if (j.is_object() && j.contains("messages")) j = nlohmann::ordered_json(j["messages"]);
  try {
    if (!awq::utf8::valid(t.render(j, options))) abort();
    if (j.is_array() && !awq::test::unmarked_private(t.render_marked(awq::test::made_private(j), options)).empty())
      abort();
  } catch (const awq::Error&) {
  }
  return 0;
}
