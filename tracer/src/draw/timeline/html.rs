//! The timeline as a self-contained page. Control and wheel or a pinch zooms, dragging moves, a text filters, a double click resets.

use super::{
    Timeline,
    svg::{STYLE, names},
};
use crate::{display::palette, draw::escape};

/// Units of the lanes' width: whatever the window's, the browser scales them.
const UNITS: f64 = 1_000_000.0;

const PAGE_STYLE: &str = "body{margin:0;background:var(--paper);color:var(--ink);font:13px ui-sans-serif,system-ui,'Segoe UI','DejaVu Sans',sans-serif}\
body{overflow-x:clip}header{position:sticky;top:0;background:var(--paper);padding-top:12px;z-index:1}h1{font-size:17px;margin:0 14px 8px}\
input{font:inherit;color:inherit;background:transparent;border:1px solid var(--rule);border-radius:6px;padding:4px 8px;width:22em;margin-left:14px}.legend{margin-left:14px}\
.legend span{display:inline-block;margin:8px 14px 0 0;white-space:nowrap}.legend i{display:inline-block;width:14px;height:11px;margin-right:5px}\
#axis{position:relative;height:24px;margin:0 60px 0 390px;border-bottom:1px solid var(--rule)}#axis b{position:absolute;font-weight:400;\
color:var(--dim);border-left:1px solid var(--rule);padding-left:3px;top:4px;white-space:nowrap}\
.lane{display:flex;height:22px}.lane svg.names{flex:0 0 390px;height:22px}.lane svg.plot{flex:1;margin-right:60px;overflow:hidden;height:22px;min-width:0;cursor:grab;touch-action:none}\
.lane:hover{background:color-mix(in srgb,var(--rule) 35%,transparent)}.lane:hover svg{background:none}rect{shape-rendering:crispEdges}\
footer{padding:10px 14px;color:var(--dim)}";

/// The view is a part of the lanes' units; bars are scaled by their view boxes alone.
const SCRIPT: &str = "const U=1e6,L=+document.body.dataset.ns,plots=[...document.querySelectorAll('svg.plot')],axis=document.getElementById('axis');\
let a=0,w=U;function time(n){for(const[s,u]of[[864e11,'d'],[36e11,'h'],[6e10,'m'],[1e9,'s'],[1e6,'ms'],[1e3,'us']])if(n>=s){return +(n/s).toPrecision(4)+u}return n?n.toFixed(0)+'ns':'0'}\
function draw(){w=Math.min(U,Math.max(w,1e-6*U));a=Math.min(U-w,Math.max(0,a));for(const p of plots)p.setAttribute('viewBox',a+' 0 '+w+' 22');\
const span=L*w/U,from=L*a/U;let step=10**Math.floor(Math.log10(span/8));for(const f of[1,2,5,10])if(step*f>=span/8){step*=f;break}\
axis.textContent='';for(let t=Math.ceil(from/step)*step;t<=from+span;t+=step){const b=document.createElement('b');b.textContent=time(t);b.style.left=(t-from)/span*100+'%';axis.append(b)}}\
function at(e){const r=axis.getBoundingClientRect();return a+(e.clientX-r.left)/r.width*w}\
addEventListener('wheel',e=>{if(!e.target.closest('.lane')||!(e.ctrlKey||e.altKey))return;e.preventDefault();\
const x=at(e),k=Math.exp(e.deltaY/400);a=x-(x-a)*k;w*=k;draw()},{passive:false});\
let drag=null;addEventListener('pointerdown',e=>{if(e.target.closest('svg.plot'))drag=e.clientX});addEventListener('pointerup',()=>drag=null);\
addEventListener('pointermove',e=>{if(drag===null)return;a-=(e.clientX-drag)/axis.getBoundingClientRect().width*w;drag=e.clientX;draw()});\
addEventListener('dblclick',()=>{a=0;w=U;draw()});addEventListener('keydown',e=>{if(e.target.tagName==='INPUT')return;const k={'+':.8,'=':.8,'-':1.25}[e.key];\
if(k){a+=w*(1-k)/2;w*=k}else if(e.key==='ArrowLeft')a-=w/10;else if(e.key==='ArrowRight')a+=w/10;else if(e.key==='0'){a=0;w=U}else return;e.preventDefault();draw()});\
document.getElementById('f').addEventListener('input',e=>{const t=e.target.value.toLowerCase();for(const l of document.querySelectorAll('.lane'))\
l.style.display=l.dataset.text.toLowerCase().includes(t)?'':'none'});draw();";

impl Timeline {
    /// As HTML.
    #[must_use]
    pub fn html(&self) -> String {
        let title = escape(&self.title);
        let mut out = format!(
            "<!doctype html>\n<html lang=\"en\"><meta charset=\"utf-8\"><meta name=\"viewport\" content=\"width=device-width\"><meta name=\"color-scheme\" \
             content=\"light dark\"><title>{title}</title><style>{STYLE}{PAGE_STYLE}</style>\n<body class=\"lanes\" data-ns=\"{}\">{}\n<footer>Ctrl and wheel, or + and -: zoom. \
             Drag, or arrows: move. Double click, or 0: all. Point at a span: what it is.",
            self.end_ns - self.begin_ns,
            self.lanes_html()
        );
        if let Some(more) = self.more() {
            out.push_str(&format!(" {more}."));
        }
        out.push_str(&format!("</footer><script>{SCRIPT}</script></body></html>\n"));
        out
    }

    fn lanes_html(&self) -> String {
        let mut out = format!(
            "<header><h1>{}</h1><input id=\"f\" placeholder=\"filter: a process, an address, a state\" aria-label=\"filter\"><div class=\"legend\">",
            escape(&self.title)
        );
        for state in palette::ORDER {
            out.push_str(&format!(
                "<span><i style=\"background:{}\"></i>{}</span>",
                palette::of(state).colour,
                state.name()
            ));
        }
        out.push_str("</div><div id=\"axis\"></div></header>\n");
        for lane in &self.lanes {
            let states: Vec<&str> = lane.spans.iter().map(|span| span.state.name()).collect();
            let text = format!("{} {} {} {}", lane.whose, lane.ends, lane.conn, states.join(" "));
            let class = if lane.was_stuck { "lane stuck" } else { "lane" };
            out.push_str(&format!(
                "<div class=\"{class}\" data-text=\"{}\"><svg class=\"names\">{}</svg><svg class=\"plot\" viewBox=\"0 0 {UNITS} 22\" preserveAspectRatio=\"none\">{}</svg></div>\n",
                escape(&text),
                names(lane),
                self.bars(lane, UNITS)
            ));
        }
        out
    }
}
