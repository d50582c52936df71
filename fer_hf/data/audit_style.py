"""The style of an audit's page."""

CSS = """
:root { color-scheme: light dark; --ink: #1c2330; --soft: #5c6778; --paper: #f6f7f9; --card: #fff; --line: #dfe3ea;
  --accent: #3166c9; --leak: #c2342b; --problem: #b66a00; --note: #46629e; }
@media (prefers-color-scheme: dark) { :root { --ink: #e8ebf1; --soft: #9aa5b8; --paper: #14171d; --card: #1d222b;
  --line: #303744; --accent: #7aa5f5; --leak: #ff8379; --problem: #f0b253; --note: #9db8f0; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--paper); color: var(--ink); font: 15px/1.5 system-ui, sans-serif; }
main { max-width: 1180px; margin: 0 auto; padding: 40px 24px 80px; }
.over { margin: 0; color: var(--accent); font-weight: 600; letter-spacing: .08em; text-transform: uppercase;
  font-size: 12px; }
h1 { margin: 4px 0 20px; font-size: 32px; line-height: 1.2; overflow-wrap: anywhere; }
h2 { margin: 56px 0 0; font-size: 21px; }
h3 { margin: 0; font-size: 14px; }
.lead { margin: 2px 0 14px; color: var(--soft); max-width: 75ch; }
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(160px, 1fr)); gap: 12px; }
.tile { background: var(--card); border: 1px solid var(--line); border-radius: 12px; padding: 14px 16px; }
.tile b { display: block; font-size: 26px; line-height: 1.2; font-variant-numeric: tabular-nums; }
.tile span { color: var(--soft); font-size: 13px; line-height: 1.35; display: block; margin-top: 4px; }
.findings { list-style: none; margin: 0; padding: 0; background: var(--card); border: 1px solid var(--line);
  border-radius: 12px; }
.findings li { padding: 10px 16px 10px 108px; position: relative; border-top: 1px solid var(--line); }
.findings li:first-child { border-top: 0; }
.findings em { position: absolute; left: 16px; font-style: normal; font-weight: 650; font-size: 13px;
  line-height: 22px; }
.leak em { color: var(--leak); } .problem em { color: var(--problem); } .note em { color: var(--note); }
table { border-collapse: collapse; width: 100%; }
th { text-align: left; font-weight: 600; }
.bars th, .bars td { padding: 5px 12px 5px 0; } .bars tbody th { width: 110px; vertical-align: top; line-height: 1.1; }
.bars td { position: relative; } .bars td > span { font-variant-numeric: tabular-nums; font-size: 13px; }
.bars small { color: var(--soft); }
.bar { background: var(--line); border-radius: 4px; height: 9px; overflow: hidden; }
.bar i { display: block; height: 100%; background: var(--accent); border-radius: 4px; min-width: 1px; }
.strip { display: grid; grid-template-columns: 98px 1fr; align-items: center; gap: 12px; margin: 8px 0; }
.lead + .lead { margin-top: -12px; }
.strip > div { display: flex; flex-wrap: wrap; gap: 5px; }
img { width: 56px; height: 56px; object-fit: contain; background: var(--line); border-radius: 6px; display: block; }
.cards { display: grid; grid-template-columns: repeat(auto-fill, minmax(262px, 1fr)); gap: 12px; align-items: start; }
.card { margin: 0; background: var(--card); border: 1px solid var(--line); border-radius: 12px; padding: 10px;
  overflow: hidden; }
.card > div { display: flex; flex-wrap: wrap; gap: 6px; } .card img { width: 84px; height: 84px; }
.card figcaption { margin-top: 8px; font-size: 12px; line-height: 1.45; color: var(--soft); }
.card figcaption span { display: block; overflow-wrap: anywhere; } .card b { color: var(--ink); }
.aside { display: grid; grid-template-columns: auto 1fr; gap: 10px; } .aside figcaption { margin-top: 0; }
.differs { border-color: var(--problem); } .differs b { color: var(--problem); }
.plain { font-size: 13px; background: var(--card); border: 1px solid var(--line); }
.plain th, .plain td { padding: 7px 12px; border-top: 1px solid var(--line); vertical-align: top;
  overflow-wrap: anywhere; } .plain th { width: 190px; }
section h3 + .plain { margin-top: 8px; }
"""
