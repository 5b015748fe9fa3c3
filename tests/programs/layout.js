// Measures a page in a frame, for tests/live/pictures.rs: which texts are cut, overlap, are too pale, or are far from their line.
function layout(frame,width){
const win=frame.contentWindow,doc=frame.contentDocument,problems=[],texts=[];
const shown=e=>{const s=win.getComputedStyle(e);return s.display!=='none'&&s.visibility!=='hidden'};
const walker=doc.createTreeWalker(doc.body,NodeFilter.SHOW_TEXT);
while(walker.nextNode()){
const node=walker.currentNode,element=node.parentElement;
if(!node.textContent.trim()||element.closest('script,style,title,noscript')||!shown(element))continue;
const range=doc.createRange();range.selectNodeContents(node);
const boxes=element.closest('text')?[element.closest('text').getBoundingClientRect()]:range.getClientRects();
for(const box of boxes)if(box.width>.5&&box.height>.5)texts.push({box,element,text:node.textContent.trim()})}
const meet=(a,b,x,y)=>Math.min(a.right,b.right)-Math.max(a.left,b.left)>x&&Math.min(a.bottom,b.bottom)-Math.max(a.top,b.top)>y;
const inside=(a,b)=>a.left>b.left-1&&a.right<b.right+1&&a.top>b.top-1&&a.bottom<b.bottom+1;
if(doc.documentElement.scrollWidth>width+1)problems.push('the page is '+doc.documentElement.scrollWidth+' wide');
// A picture alone is scaled; a page has to stay readable.
const least=doc.querySelector('body>svg')?0:9;
for(const{box,element,text}of texts){
if(box.height<least)problems.push('small: '+text);
if(box.left<-1||box.right>width+1)problems.push('outside of the window: '+text);
for(let e=element;e&&e!==doc.body;e=e.parentElement){
const clips=e.tagName==='svg'||win.getComputedStyle(e).overflowX!=='visible';
if(clips&&!inside(box,e.getBoundingClientRect())){problems.push('cut: '+text);break}}}
texts.sort((a,b)=>a.box.top-b.box.top);
texts.forEach((one,at)=>{for(let i=at+1;i<texts.length&&texts[i].box.top<one.box.bottom;i++)
if(meet(one.box,texts[i].box,1,2))problems.push('overlap: '+one.text+' / '+texts[i].text)});
const rgb=c=>(c.match(/[\d.]+/g)||[]).slice(0,3).map(Number);
const luminance=c=>{const l=c.map(v=>(v/=255)<=.04045?v/12.92:((v+.055)/1.055)**2.4);return .2126*l[0]+.7152*l[1]+.0722*l[2]};
const over=(c,behind,opacity)=>c.map((v,i)=>v*opacity+behind[i]*(1-opacity));
const opacity=e=>{let o=1;for(;e;e=e.parentElement)o*=win.getComputedStyle(e).opacity;return o};
const probe=doc.createElement('i');doc.body.append(probe);
for(const{box,element,text}of texts){
const svg=element.closest('svg[class]')||doc.documentElement,back=doc.querySelector('body>svg>rect');
probe.style.color=win.getComputedStyle(svg).getPropertyValue('--paper')||(back?win.getComputedStyle(back).fill:'#fff');
const paper=rgb(win.getComputedStyle(probe).color),style=win.getComputedStyle(element),label=element.closest('text');
// A label may stand on a filled shape of its own.
const shape=label&&[...label.parentElement.children].find(e=>e.tagName==='rect'&&e.parentElement.tagName==='g'&&meet(box,e.getBoundingClientRect(),box.width/2,box.height/2));
const fill=shape?rgb(win.getComputedStyle(shape).fill):[];
const behind=fill.length?over(fill,paper,opacity(shape)):paper;
const ink=luminance(over(rgb(label?style.fill:style.color),behind,opacity(element))),ground=luminance(behind);
const contrast=(Math.max(ink,ground)+.05)/(Math.min(ink,ground)+.05);
if(contrast<4.5)problems.push('contrast '+contrast.toFixed(2)+': '+text)}
for(const group of doc.querySelectorAll('g[data-edge]')){
if(!group.getBoundingClientRect().width)continue;
const path=group.querySelector('path'),matrix=path.getScreenCTM(),points=[];
for(let at=0;at<=path.getTotalLength();at+=3)points.push(path.getPointAtLength(at).matrixTransform(matrix));
for(const{box,text}of texts)
if(points.some(p=>p.x>box.left+1&&p.x<box.right-1&&p.y>box.top+2&&p.y<box.bottom-2))problems.push('a line crosses '+text);
for(const label of group.querySelectorAll('text')){
const box=label.getBoundingClientRect();
const far=Math.min(...points.map(p=>Math.hypot(Math.max(box.left-p.x,0,p.x-box.right),Math.max(box.top-p.y,0,p.y-box.bottom))));
if(far>24*matrix.a)problems.push(label.textContent+' is '+far.toFixed()+' from its line')}}
for(const rect of doc.querySelectorAll('g[data-state]>rect'))
for(const{box,element,text}of texts)
if(element.closest('g')!==rect.parentElement&&meet(box,rect.getBoundingClientRect(),1,1))problems.push('in a box: '+text);
return{problems:[...new Set(problems)],texts:texts.length,dark:win.matchMedia('(prefers-color-scheme:dark)').matches}}
// Which share of an image's pixels has which colour.
function colours(image){
const canvas=document.createElement('canvas');canvas.width=image.naturalWidth;canvas.height=image.naturalHeight;
const context=canvas.getContext('2d');context.drawImage(image,0,0);
const data=context.getImageData(0,0,canvas.width,canvas.height).data,counts={};
for(let at=0;at<data.length;at+=4){const colour=data[at+3]<128?'transparent':'#'+[0,1,2].map(i=>data[at+i].toString(16).padStart(2,'0')).join('');
counts[colour]=(counts[colour]||0)+1}
const all=data.length/4,found={};
for(const[colour,count]of Object.entries(counts))if(count/all>.0005)found[colour]=count/all;
return found}
function report(found){const out=document.createElement('pre');out.id='found';out.textContent=encodeURIComponent(JSON.stringify(found));document.body.append(out)}
