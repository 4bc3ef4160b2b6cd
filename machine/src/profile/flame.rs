//! A flame graph: a drawing in which each function is as wide as the time spent in it and in what it called, and lies on what
//! called it. It brings its own JavaScript and needs nothing else.

use std::fmt::Write;

use super::fold::Folded;

const WIDTH: f64 = 1200.0;
const MARGIN: f64 = 10.0;
const ROW: f64 = 17.0;
/// Above the graph: the title and the controls.
const HEAD: f64 = 56.0;
/// Below it: the name of what the pointer is on.
const FOOT: f64 = 28.0;
/// Pixels of one character.
const CHARACTER: f64 = 7.0;
/// Parts of the whole that are too small to draw, even when they are zoomed in.
const SMALLEST: f64 = 1e-5;

/// A function on its callers.
#[derive(Default)]
struct Frame<'a> {
    name: &'a str,
    total: u64,
    /// In the order of their names.
    callees: Vec<Frame<'a>>,
}

impl<'a> Frame<'a> {
    /// `folded` is sorted, so equal names of one level follow each other.
    fn of(folded: &'a Folded) -> Self {
        let mut root = Frame { name: "all", ..Frame::default() };
        for (names, &count) in folded {
            let mut frame = &mut root;
            frame.total += count;
            for name in names {
                if frame.callees.last().is_none_or(|last| last.name != name) {
                    frame.callees.push(Frame { name, ..Frame::default() });
                }
                let last = frame.callees.len() - 1;
                frame = &mut frame.callees[last];
                frame.total += count;
            }
        }
        root
    }

    fn depth(&self) -> usize {
        1 + self.callees.iter().map(Frame::depth).max().unwrap_or(0)
    }
}

/// The drawing.
pub(super) fn svg(folded: &Folded) -> String {
    let root = Frame::of(folded);
    let bottom = HEAD + root.depth() as f64 * ROW;
    let height = bottom + FOOT;
    let mut out = String::new();
    let _ = write!(
        out,
        r##"<?xml version="1.0" encoding="UTF-8"?>
<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}" font-family="monospace" font-size="11">
<style>
.frame {{ cursor: pointer }} .frame:hover rect {{ stroke: #000 }} .frame.found rect {{ fill: #c050e0 }} .frame.under {{ opacity: 0.5 }}
text {{ fill: #000; pointer-events: none }} #reset {{ cursor: pointer; pointer-events: auto; text-decoration: underline }}
.hidden {{ display: none }} input {{ font: 11px monospace; width: 220px; box-sizing: border-box }}
</style>
<rect width="100%" height="100%" fill="#fafaf6"/>
<text x="{middle}" y="22" font-size="15" text-anchor="middle">{total} ms of all harts</text>
<foreignObject x="{search}" y="28" width="224" height="24"><input xmlns="http://www.w3.org/1999/xhtml" id="search" type="text" placeholder="search (regular expression)"/></foreignObject>
<text id="reset" class="hidden" x="{MARGIN}" y="44">reset zoom</text>
<text id="matched" x="{matched}" y="44" text-anchor="end"></text>
<text id="details" x="{MARGIN}" y="{details}"></text>
<g id="graph">
"##,
        middle = WIDTH / 2.0,
        total = root.total,
        search = WIDTH - MARGIN - 224.0,
        matched = WIDTH - MARGIN - 236.0,
        details = height - 10.0,
    );
    draw(&mut out, &root, 0.0, bottom - ROW, root.total.max(1) as f64);
    let _ = write!(
        out,
        "</g>\n<script><![CDATA[\n\"use strict\";\nconst WIDTH = {WIDTH}, MARGIN = {MARGIN}, CHARACTER = {CHARACTER};\n{}]]></script>\n</svg>\n",
        include_str!("flame.js"),
    );
    out
}

/// Draws a frame that starts at `start` milliseconds of `all`, and what is on it. Scripts read the exact numbers back.
fn draw(out: &mut String, frame: &Frame<'_>, start: f64, y: f64, all: f64) {
    let (total, scale) = (frame.total as f64, (WIDTH - 2.0 * MARGIN) / all);
    if total / all < SMALLEST {
        return;
    }
    let (x, width) = (MARGIN + start * scale, total * scale);
    let name = escape(frame.name);
    let percent = 100.0 * total / all;
    let _ = writeln!(
        out,
        r##"<g class="frame" data-name="{name}" data-start="{start}" data-total="{total}"><title>{name} ({total} ms, {percent:.2}%)</title><rect x="{x:.2}" y="{y:.1}" width="{width:.2}" height="{height}" rx="1" fill="{colour}"/><text x="{text:.2}" y="{base:.1}">{label}</text></g>"##,
        height = ROW - 1.0,
        colour = colour(frame.name),
        text = x + 3.0,
        base = y + ROW - 5.0,
        label = escape(&label(frame.name, width)),
    );
    let mut start = start;
    for callee in &frame.callees {
        draw(out, callee, start, y - ROW, all);
        start += callee.total as f64;
    }
}

/// As much of a name as there is room for.
fn label(name: &str, width: f64) -> String {
    let room = ((width - 6.0) / CHARACTER).max(0.0) as usize;
    match name.chars().count() {
        count if count <= room => name.into(),
        _ if room < 3 => String::new(),
        _ => name.chars().take(room - 2).chain("..".chars()).collect(),
    }
}

/// A warm colour, always the same for a name.
fn colour(name: &str) -> String {
    let hash =
        name.bytes().fold(0x811c_9dc5_u32, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193));
    format!("hsl({},{}%,{}%)", hash % 50 + 5, 60 + hash / 50 % 30, 60 + hash / 1500 % 15)
}

fn escape(text: &str) -> String {
    let mut out = String::new();
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            // XML has no way to write the others.
            c if c.is_control() || matches!(c, '\u{fffe}' | '\u{ffff}') => out.push('\u{fffd}'),
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folded(lines: &[(&[&str], u64)]) -> Folded {
        lines
            .iter()
            .map(|(names, count)| (names.iter().map(|name| name.to_string()).collect(), *count))
            .collect()
    }

    #[test]
    fn frames_are_as_wide_as_their_time_and_lie_on_their_callers() {
        let svg = svg(&folded(&[(&["user", "a"], 25), (&["user", "a", "b"], 50), (&["user", "c<d>"], 25)]));
        let frame = |name: &str| {
            let line = svg.lines().find(|line| line.contains(&format!("data-name=\"{name}\""))).expect(name);
            let number = |key: &str| -> f64 {
                let rest = line.split_once(&format!(" {key}=\"")).expect(key).1;
                rest.split_once('"').expect("the end").0.parse().expect("a number")
            };
            (number("data-start"), number("data-total"), number("y"), number("width"))
        };
        let (all, a, b, c) = (frame("all"), frame("a"), frame("b"), frame("c&lt;d&gt;"));
        assert_eq!((all.0, all.1, all.3), (0.0, 100.0, WIDTH - 2.0 * MARGIN));
        assert_eq!([(a.0, a.1), (b.0, b.1), (c.0, c.1)], [(0.0, 75.0), (0.0, 50.0), (75.0, 25.0)]);
        assert_eq!([all.2 - a.2, a.2 - b.2, a.2 - c.2], [2.0 * ROW, ROW, 0.0]);
    }

    #[test]
    fn labels_fit_their_frames() {
        assert_eq!(label("abcdef", 6.0 + 6.0 * CHARACTER), "abcdef");
        assert_eq!(label("abcdef", 6.0 + 5.0 * CHARACTER), "abc..");
        assert_eq!(label("abcdef", 10.0), "");
    }

    #[test]
    fn an_empty_profile_is_a_drawing_too() {
        let svg = svg(&Folded::new());
        assert!(svg.contains("0 ms of all harts") && svg.trim_end().ends_with("</svg>"), "{svg}");
    }
}
