//! A flame graph as one SVG file that needs nothing else: a rectangle for each function, above those that called it, as
//! wide as its share. A browser shows the whole name on hovering, zooms on a click, and marks what Ctrl-F asks for.
//!
//! Pure: from counted lines of `;`-separated frames to text. Deep recursion and foreign names are harmless.

use std::{collections::BTreeMap, fmt::Write as _};

/// Width of the picture, and what is kept free around and between the rectangles; the script has the same numbers.
const WIDTH: f64 = 1200.0;
const MARGIN: f64 = 10.0;
const TOP: f64 = 48.0;
const BOTTOM: f64 = 28.0;
const ROW: f64 = 17.0;
const GLYPH: f64 = 6.6;
/// Narrower rectangles are left out: nobody sees them, and they are the many.
const NARROWEST: f64 = 0.1;
/// Frames above this depth are not drawn.
const MAX_DEPTH: usize = 512;

/// One rectangle.
struct Frame<'a> {
    name: &'a str,
    depth: usize,
    start: u64,
    count: u64,
}

/// Writes the graph of `counts`.
pub(super) fn write(title: &str, counts: &BTreeMap<String, u64>, out: &mut Vec<u8>) {
    let (frames, total) = frames(counts);
    let depth = frames.iter().map(|f| f.depth).max().unwrap_or(0);
    let height = TOP + BOTTOM + ROW * (depth + 1) as f64;
    let scale = (WIDTH - 2.0 * MARGIN) / total.max(1) as f64;
    let mut svg = String::new();
    let mut put = |text: std::fmt::Arguments<'_>| {
        // a String takes everything
        let (Ok(()) | Err(std::fmt::Error)) = svg.write_fmt(text);
    };
    put(format_args!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{WIDTH}\" height=\"{height}\" \
         viewBox=\"0 0 {WIDTH} {height}\" font-family=\"monospace\" font-size=\"11\">\n<style>g:hover rect{{stroke:#000}} \
         g{{cursor:pointer}} .dim{{opacity:.45}} .hit rect{{fill:#c6f}}</style>\n<rect width=\"100%\" height=\"100%\" fill=\"#fdfdf6\"/>\n\
         <text x=\"{}\" y=\"24\" font-size=\"16\" text-anchor=\"middle\">{}</text>\n<text id=\"back\" x=\"{MARGIN}\" y=\"24\" \
         visibility=\"hidden\" style=\"cursor:pointer\">whole graph</text>\n<text id=\"seen\" x=\"{MARGIN}\" y=\"{}\"> </text>\n",
        WIDTH / 2.0,
        Xml(title),
        height - 10.0,
    ));
    for f in &frames {
        let (x, width) = (MARGIN + f.start as f64 * scale, f.count as f64 * scale);
        if width < NARROWEST {
            continue;
        }
        let y = height - BOTTOM - ROW * (f.depth + 1) as f64;
        let share = 100.0 * f.count as f64 / total.max(1) as f64;
        put(format_args!(
            "<g data-x=\"{x:.2}\" data-w=\"{width:.2}\"><title>{} ({} samples, {share:.2}%)</title><rect x=\"{x:.2}\" y=\"{y}\" \
             width=\"{width:.2}\" height=\"{}\" rx=\"1\" fill=\"{}\"/><text x=\"{:.2}\" y=\"{}\">{}</text></g>\n",
            Xml(f.name),
            f.count,
            ROW - 1.0,
            colour(f.name),
            x + 3.0,
            y + 12.0,
            Xml(&fitting(f.name, width)),
        ));
    }
    put(format_args!("<script><![CDATA[{SCRIPT}]]></script>\n</svg>\n"));
    out.extend_from_slice(svg.as_bytes());
}

/// Rectangles from sorted stacks: neighbours share what they have in common. Callers come before what they called.
fn frames(counts: &BTreeMap<String, u64>) -> (Vec<Frame<'_>>, u64) {
    let mut done: Vec<Frame<'_>> = vec![Frame { name: "all", depth: 0, start: 0, count: 0 }];
    // indices into `done` of the frames of the stack before; by frames, not by bytes: `a b` sorts before `a;b`
    let mut open: Vec<usize> = Vec::new();
    let mut stacks: Vec<(Vec<&str>, u64)> = counts.iter().map(|(l, n)| (l.split(';').collect(), *n)).collect();
    stacks.sort();
    let mut at = 0u64;
    for (stack, count) in &stacks {
        let same = open.iter().zip(stack).take_while(|(o, name)| done[**o].name == **name).count();
        open.truncate(same);
        for (depth, name) in stack.iter().enumerate().skip(same).take(MAX_DEPTH.saturating_sub(same)) {
            open.push(done.len());
            done.push(Frame { name, depth: depth + 1, start: at, count: 0 });
        }
        for o in &open {
            done[*o].count = done[*o].count.saturating_add(*count);
        }
        at = at.saturating_add(*count);
    }
    done[0].count = at;
    (done, at)
}

/// Warm colours, the kernel's a little cooler; the same name always has the same.
fn colour(name: &str) -> String {
    let hash = name.bytes().fold(0x811c_9dc5u32, |h, b| (h ^ u32::from(b)).wrapping_mul(0x0100_0193));
    let (a, b) = (hash >> 8 & 0x3f, hash >> 16 & 0x3f);
    match (name.ends_with("_[k]"), name.starts_with('[')) {
        (true, _) => format!("rgb({},{},{})", 214 + a / 2, 140 + b, 60 + a),
        (_, true) => format!("rgb({0},{0},{0})", 190 + a / 2),
        _ => format!("rgb({},{},{})", 214 + a / 2, 80 + b * 2, 50),
    }
}

/// As much of a name as a rectangle has room for.
fn fitting(name: &str, width: f64) -> String {
    let room = ((width - 6.0) / GLYPH).max(0.0) as usize;
    match name.chars().count() {
        n if n <= room => name.to_owned(),
        _ if room < 3 => String::new(),
        _ => name.chars().take(room - 2).chain("..".chars()).collect(),
    }
}

/// Text of others inside XML.
struct Xml<'a>(&'a str);

impl std::fmt::Display for Xml<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for c in self.0.chars() {
            match c {
                '<' => f.write_str("&lt;")?,
                '>' => f.write_str("&gt;")?,
                '&' => f.write_str("&amp;")?,
                '"' => f.write_str("&quot;")?,
                // XML has no way to write these at all
                c if c.is_control() || matches!(c, '\u{fffe}' | '\u{ffff}') => f.write_char('?')?,
                c => f.write_char(c)?,
            }
        }
        Ok(())
    }
}

/// Reads positions from the rectangles; names never become markup.
const SCRIPT: &str = r"
const all=[...document.querySelectorAll('g')],back=document.getElementById('back'),seen=document.getElementById('seen');
const name=g=>g.querySelector('title').textContent,W=1180,M=10;
function place(g,x,w){const r=g.querySelector('rect'),t=g.querySelector('text'),n=name(g).replace(/ \([0-9]+ samples, [0-9.]+%\)$/,'');
g.style.display=w<.1?'none':'';r.setAttribute('x',x);r.setAttribute('width',Math.max(w,0));t.setAttribute('x',x+3);
const room=Math.floor((w-6)/6.6);t.textContent=n.length<=room?n:room<3?'':n.slice(0,room-2)+'..';}
function zoom(to){const x0=to?+to.dataset.x:M,w0=to?+to.dataset.w:W,k=W/w0,y0=to?+to.querySelector('rect').getAttribute('y'):1e9;
for(const g of all){const x=+g.dataset.x,w=+g.dataset.w,below=+g.querySelector('rect').getAttribute('y')>y0;
const holds=x<=x0+.01&&x+w>=x0+w0-.01,inside=x>=x0-.01&&x+w<=x0+w0+.01;g.classList.toggle('dim',!!to&&below&&holds);
if(below&&holds&&to)place(g,M,W);else if(inside&&!below||!to)place(g,M+(x-x0)*k,w*k);else place(g,0,0);}
back.setAttribute('visibility',to?'visible':'hidden');}
for(const g of all){g.addEventListener('click',()=>zoom(g));g.addEventListener('mouseover',()=>seen.textContent=name(g));
g.addEventListener('mouseout',()=>seen.textContent=' ');}
back.addEventListener('click',()=>zoom(null));
addEventListener('keydown',e=>{if(!(e.ctrlKey||e.metaKey)||e.key!=='f')return;e.preventDefault();const w=prompt('Mark functions whose name holds:');
for(const g of all)g.classList.toggle('hit',!!w&&name(g).includes(w));});
";

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(lines: &[(&str, u64)]) -> BTreeMap<String, u64> {
        lines.iter().map(|(l, n)| ((*l).to_owned(), *n)).collect()
    }

    #[test]
    fn neighbours_share_what_they_have_in_common() {
        let counts = counts(&[("a;b;c", 1), ("a;b", 2), ("a;b d", 4), ("a;d", 8), ("e", 16)]);
        let (frames, total) = frames(&counts);
        let shown: Vec<_> = frames.iter().map(|f| (f.name, f.depth, f.start, f.count)).collect();
        assert_eq!(total, 31);
        assert_eq!(
            shown,
            [
                ("all", 0, 0, 31),
                ("a", 1, 0, 15),
                ("b", 2, 0, 3),
                ("c", 3, 2, 1),
                ("b d", 2, 3, 4),
                ("d", 2, 7, 8),
                ("e", 1, 15, 16)
            ]
        );
    }

    #[test]
    fn nothing_gives_a_graph_of_nothing() {
        let mut out = Vec::new();
        write("t", &BTreeMap::new(), &mut out);
        let text = String::from_utf8(out).unwrap();
        assert!(text.starts_with("<?xml") && text.ends_with("</svg>\n") && !text.contains("NaN"), "{text}");
    }

    #[test]
    fn deep_and_hostile_stacks_are_drawn_as_far_as_they_can_be() {
        let deep = vec!["f"; 5000].join(";");
        let counts = counts(&[(&deep, 1), ("</title><script>alert(1)</script>\x1b;]]>", u64::MAX)]);
        let mut out = Vec::new();
        write("x<y", &counts, &mut out);
        let text = String::from_utf8(out).unwrap();
        assert_eq!(text.matches("<script>").count(), 1);
        assert_eq!(text.matches("]]>").count(), 1);
        assert!(text.contains("x&lt;y") && !text.contains('\x1b'));
    }

    #[test]
    fn names_are_cut_to_their_rectangle() {
        assert_eq!(fitting("abc", 100.0), "abc");
        assert_eq!(fitting("abcdefgh", 6.0 + 5.5 * GLYPH), "abc..");
        assert_eq!(fitting("abcdefgh", 10.0), "");
    }
}
