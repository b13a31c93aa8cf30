#include "report/page.h"

namespace awq {

// Colours of text and lines have a contrast of 4.5 and more to what is behind them, in both schemes; the reference is
// dashed, so that colour alone tells nothing.
std::string_view page_style() {
  return R"(
:root { color-scheme: light dark; --back: #ffffff; --panel: #f4f6f8; --text: #1b1f24; --quiet: #57606a; --line: #d5dae0;
  --result: #0b5cad; --reference: #a04a00; --bad: #b3261e; --good: #1a6b34; }
@media (prefers-color-scheme: dark) { :root { --back: #14171a; --panel: #1d2126; --text: #e6e8ea; --quiet: #a3abb3;
  --line: #3a4149; --result: #6cb2ff; --reference: #f0a35e; --bad: #ff8f85; --good: #6fce8c; } }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 1.2rem; max-width: 72rem; background: var(--back); color: var(--text);
  font: 1rem/1.5 system-ui, sans-serif; overflow-wrap: break-word; }
h1 { font-size: 1.6rem; margin: 0 0 .3rem; } h2 { font-size: 1.2rem; margin: 2.2rem 0 .3rem; }
h3 { font-size: .95rem; margin: .2rem 0; } p { margin: .3rem 0 .8rem; max-width: 46rem; }
.quiet, caption, dt { color: var(--quiet); }
dl { display: grid; grid-template-columns: repeat(auto-fill, minmax(10.5rem, 1fr)); gap: .7rem; margin: 1rem 0; }
dl div { background: var(--panel); border-radius: .5rem; padding: .6rem .8rem; }
dt { font-size: .85rem; } dd { margin: 0; font-size: 1.15rem; font-variant-numeric: tabular-nums; }
.charts { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 19rem), 1fr)); gap: 1rem; }
figure { margin: 0; background: var(--panel); border-radius: .5rem; padding: .6rem .8rem; break-inside: avoid; }
figcaption { font-size: .9rem; }
svg { display: block; width: 100%; height: auto; max-width: 34rem; }
svg text { fill: var(--quiet); font-size: 10px; font-family: system-ui, sans-serif; }
svg .grid { stroke: var(--line); stroke-width: 1; }
svg polyline { fill: none; stroke-width: 1.6; stroke-linejoin: round; }
.result polyline { stroke: var(--result); } .result circle { fill: var(--result); }
.reference polyline { stroke: var(--reference); stroke-dasharray: 5 3; } .reference circle { fill: var(--reference); }
svg .bar { fill: var(--result); }
.key { display: inline-block; width: 1.8em; margin: 0 .4em .25em 0; border-top: 3px solid var(--result); }
.key.dashed { border-top: 3px dashed var(--reference); margin-left: 1.2em; }
.scroll { overflow-x: auto; } table { border-collapse: collapse; font-size: .85rem; margin: .5rem 0 1rem; }
caption { text-align: left; padding-bottom: .3rem; }
th, td { padding: .2rem .7rem .2rem 0; border-bottom: 1px solid var(--line); text-align: left; vertical-align: top; }
.n { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
td:first-child { white-space: nowrap; }
details { margin: .6rem 0; } summary { cursor: pointer; color: var(--result); }
.answer { margin: 1rem 0; border-top: 1px solid var(--line); padding-top: .5rem; break-inside: avoid; }
.pair { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 18rem), 1fr)); gap: 1rem; }
.said { white-space: pre-wrap; background: var(--panel); border-radius: .5rem; padding: .6rem .8rem; unicode-bidi: isolate;
  overflow-wrap: anywhere; }
.bad { color: var(--bad); font-weight: 600; } .good { color: var(--good); font-weight: 600; }
@media print { :root { color-scheme: light; --back: #ffffff; --panel: #ffffff; --text: #000000; --quiet: #444444; --line: #bbbbbb;
    --result: #0b5cad; --reference: #a04a00; --bad: #b3261e; --good: #1a6b34; }
  body { max-width: none; padding: 0; font-size: 10pt; } h2 { break-after: avoid; } details:not([open]) { display: none; }
  figure, dl div, .said { border: 1px solid var(--line); } .scroll { overflow: visible; }
  svg .bar, .key { print-color-adjust: exact; -webkit-print-color-adjust: exact; } }
)";
}

}  // namespace awq
