function time(n){for(const[s,u]of[[864e11,'d'],[36e11,'h'],[6e10,'m'],[1e9,'s'],[1e6,'ms'],[1e3,'us']])if(n>=s)return(n/s).toFixed(n/s<10?1:0)+u;return n.toFixed(0)+'ns'}
document.querySelectorAll('figure[data-v]').forEach(figure=>{
const values=figure.dataset.v.split(','),length=+figure.dataset.ns,read=figure.querySelector('span'),all=read.textContent;
const svg=figure.querySelector('svg'),line=figure.querySelector('.at');
svg.addEventListener('pointermove',e=>{const r=svg.getBoundingClientRect(),x=(e.clientX-r.left)/r.width*300,part=(x-42)/246;
if(part<0||part>=1){leave();return}
line.style.visibility='visible';line.setAttribute('d','M'+x+' 10V92');
read.textContent=values[Math.floor(part*values.length)]+' at '+time(part*length)});
function leave(){line.style.visibility='hidden';read.textContent=all}
svg.addEventListener('pointerleave',leave)});
document.querySelectorAll('table').forEach(table=>{
const body=table.tBodies[0],heads=[...table.tHead.rows[0].cells];
if(body.rows.length<2)return;
heads.forEach((head,at)=>{head.tabIndex=0;head.title='sort';
const sort=()=>{const down=head.ariaSort!=='descending'&&(head.ariaSort==='ascending'||head.className==='n');
heads.forEach(h=>h.ariaSort=null);head.ariaSort=down?'descending':'ascending';
const key=row=>{const cell=row.cells[at];return'v'in cell.dataset?+cell.dataset.v:cell.textContent};
[...body.rows].sort((a,b)=>{const x=key(a),y=key(b);return(x<y?-1:x>y?1:0)*(down?-1:1)}).forEach(row=>body.append(row))};
head.addEventListener('click',sort);head.addEventListener('keydown',e=>{if(e.key==='Enter')sort()})});
if(body.rows.length<8)return;
const input=document.createElement('input');input.className='rows';input.placeholder='filter these rows';input.ariaLabel='filter';
input.addEventListener('input',()=>{const t=input.value.toLowerCase();for(const row of body.rows)row.hidden=!row.textContent.toLowerCase().includes(t)});
table.before(input)});
