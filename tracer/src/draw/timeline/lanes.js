document.querySelectorAll('.lanes').forEach(lanes=>{
const U=1e6,L=+lanes.dataset.ns,axis=lanes.querySelector('.axis'),plots=[...lanes.querySelectorAll('svg.plot')];
const steps=[1,2,5,10,15,30,60,120,180,360,720,1440,2880,10080].map(m=>m*6e10);
let a=0,w=U;
function time(n){for(const[s,u]of[[864e11,'d'],[36e11,'h'],[6e10,'m'],[1e9,'s'],[1e6,'ms'],[1e3,'us']])if(n>=s)return+(n/s).toPrecision(4)+u;return n?n.toFixed(0)+'ns':'0'}
function step(n){if(n>3e10)return steps.find(s=>s>=n)||864e11*Math.ceil(n/864e11);const p=10**Math.floor(Math.log10(n));return[1,2,5,10].map(f=>f*p).find(s=>s>=n)}
function draw(){
w=Math.min(U,Math.max(w,1e-6*U));a=Math.min(U-w,Math.max(0,a));
for(const p of plots)p.setAttribute('viewBox',a+' 0 '+w+' 22');
const span=L*w/U,from=L*a/U,s=step(span/Math.max(2,Math.floor(axis.clientWidth/60)));
axis.textContent='';
for(let t=Math.ceil(from/s)*s;t<=from+span;t+=s){const b=document.createElement('b');b.textContent=time(t);b.style.left=(t-from)/span*100+'%';axis.append(b)}}
function at(e){const r=axis.getBoundingClientRect();return a+(e.clientX-r.left)/r.width*w}
lanes.addEventListener('wheel',e=>{if(!e.target.closest('.lane')||!(e.ctrlKey||e.altKey))return;e.preventDefault();
const x=at(e),k=Math.exp(e.deltaY/400);a=x-(x-a)*k;w*=k;draw()},{passive:false});
let drag=null;
lanes.addEventListener('pointerdown',e=>{if(e.target.closest('svg.plot'))drag=e.clientX});
addEventListener('pointerup',()=>drag=null);addEventListener('pointercancel',()=>drag=null);
addEventListener('pointermove',e=>{if(drag===null)return;a-=(e.clientX-drag)/axis.clientWidth*w;drag=e.clientX;draw()});
addEventListener('resize',draw);
lanes.addEventListener('dblclick',()=>{a=0;w=U;draw()});
(document.body.dataset.keys?document:lanes).addEventListener('keydown',e=>{if(e.target.tagName==='INPUT'||e.ctrlKey||e.metaKey||e.altKey)return;
const k={'+':.8,'=':.8,'-':1.25}[e.key];
if(k){a+=w*(1-k)/2;w*=k}else if(e.key==='ArrowLeft')a-=w/10;else if(e.key==='ArrowRight')a+=w/10;else if(e.key==='0'){a=0;w=U}else return;
e.preventDefault();draw()});
lanes.querySelector('.filter').addEventListener('input',e=>{const t=e.target.value.toLowerCase();
for(const l of lanes.querySelectorAll('.lane'))l.style.display=l.dataset.text.toLowerCase().includes(t)?'':'none'});
draw()});
