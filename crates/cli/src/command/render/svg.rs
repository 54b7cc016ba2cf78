//! A picture as SVG: the crate `layout-rs` places boxes and arrows, this file draws them.
use super::picture::{Picture, Shape};
use layout::{
    core::{
        base::Orientation,
        color::Color,
        format::{ClipHandle, RenderBackend},
        geometry::{Point, get_size_for_str, pad_shape_scalar},
        style::StyleAttr,
    },
    std_shapes::shapes::{Arrow, Element, ShapeKind},
    topo::layout::VisualGraph,
};
use std::fmt::Write as _;

/// Pixels.
const FONT_SIZE: usize = 13;
/// Pixels between a box and its text.
const PADDING: f64 = 16.0;
/// Pixels around the picture.
const MARGIN: f64 = 12.0;
/// Up to this many arrows say what they carry; more would hide one another.
const MAX_LABELS: usize = 60;

/// The picture as an SVG document.
pub(super) fn render(picture: &Picture) -> String {
    let mut graph = VisualGraph::new(Orientation::TopToBottom);
    let handles: Vec<_> = picture.node_weights().map(|shape| graph.add_node(element(shape))).collect();
    for edge in picture.edge_indices() {
        let Some((from, to)) = picture.edge_endpoints(edge) else { continue };
        let label = if picture.edge_count() <= MAX_LABELS { picture[edge].as_str() } else { "" };
        let mut arrow = Arrow::simple(label);
        arrow.look = look("#85929e", None);
        graph.add_edge(arrow, handles[from.index()], handles[to.index()]);
    }
    let mut svg = Svg::default();
    if picture.node_count() > 0 {
        graph.do_it(false, false, false, &mut svg);
    }
    svg.document()
}

fn element(shape: &Shape) -> Element {
    let text = shape.text();
    let size = pad_shape_scalar(get_size_for_str(&text, FONT_SIZE), PADDING);
    let (fill, line) = shape.colors();
    Element::create(ShapeKind::new_box(&text), look(line, Some(fill)), Orientation::TopToBottom, size)
}

fn look(line: &str, fill: Option<&str>) -> StyleAttr {
    let color = |hex: &str| Color::new(u32::from_str_radix(&hex[1..], 16).unwrap_or(0) << 8 | 0xff);
    StyleAttr::new(color(line), 1, fill.map(color), 6, FONT_SIZE)
}

/// What was drawn so far, and how far it reaches.
#[derive(Default)]
struct Svg {
    content: String,
    width: f64,
    height: f64,
}

impl Svg {
    fn reach(&mut self, x: f64, y: f64) {
        (self.width, self.height) = (self.width.max(x), self.height.max(y));
    }
    fn document(&self) -> String {
        let (width, height) = (self.width + MARGIN, self.height + MARGIN);
        format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width:.0}\" height=\"{height:.0}\" \
             viewBox=\"0 0 {width:.0} {height:.0}\" font-family=\"system-ui, sans-serif\" font-size=\"{FONT_SIZE}\">\n\
             <defs><marker id=\"end\" markerWidth=\"9\" markerHeight=\"6\" refX=\"9\" refY=\"3\" orient=\"auto\">\
             <path d=\"M0 0 L9 3 L0 6 z\" fill=\"#85929e\"/></marker></defs>\n\
             <rect width=\"100%\" height=\"100%\" fill=\"#ffffff\"/>\n{}</svg>\n",
            self.content
        )
    }
    fn push(&mut self, element: std::fmt::Arguments<'_>) {
        let _ = writeln!(self.content, "{element}");
    }
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

impl RenderBackend for Svg {
    fn draw_rect(
        &mut self,
        xy: Point,
        size: Point,
        look: &StyleAttr,
        _: Option<String>,
        _: Option<ClipHandle>,
    ) {
        self.reach(xy.x + size.x, xy.y + size.y);
        let fill = look.fill_color.map_or_else(|| "none".to_string(), |c| c.to_web_color());
        let (line, round) = (look.line_color.to_web_color(), look.rounded);
        let (x, y, w, h) = (xy.x, xy.y, size.x, size.y);
        self.push(format_args!(
            "<rect x=\"{x:.1}\" y=\"{y:.1}\" width=\"{w:.1}\" height=\"{h:.1}\" rx=\"{round}\" fill=\"{fill}\" stroke=\"{line}\"/>"
        ));
    }
    fn draw_text(&mut self, xy: Point, text: &str, look: &StyleAttr) {
        let line_height = look.font_size as f64 * 1.1;
        let n_lines = text.lines().count() as f64;
        for (i, line) in text.lines().enumerate() {
            let y = xy.y + (i as f64 - (n_lines - 1.0) / 2.0) * line_height;
            // The title stands out from what is said below it.
            let weight = if i == 0 && n_lines > 1.0 { " font-weight=\"600\"" } else { "" };
            let text = escaped(line);
            self.push(format_args!(
                "<text x=\"{:.1}\" y=\"{y:.1}\" text-anchor=\"middle\" dominant-baseline=\"central\"{weight}>{text}</text>",
                xy.x
            ));
        }
    }
    fn draw_arrow(
        &mut self,
        path: &[(Point, Point)],
        _: bool,
        (start, end): (bool, bool),
        look: &StyleAttr,
        _: Option<String>,
        _: &str,
    ) {
        path.iter().flat_map(|(a, b)| [a, b]).for_each(|p| self.reach(p.x, p.y));
        let [first, second, rest @ ..] = path else { return };
        let pair = |p: &Point| format!("{:.1} {:.1}", p.x, p.y);
        let mut curve =
            format!("M{} C{}, {}, {}", pair(&first.0), pair(&first.1), pair(&second.0), pair(&second.1));
        for (control, point) in rest {
            let _ = write!(curve, " S{}, {}", pair(control), pair(point));
        }
        let head =
            |on: bool, which: &str| if on { format!(" marker-{which}=\"url(#end)\"") } else { String::new() };
        let (line, start, end) = (look.line_color.to_web_color(), head(start, "start"), head(end, "end"));
        self.push(format_args!("<path d=\"{curve}\" fill=\"none\" stroke=\"{line}\"{start}{end}/>"));
    }
    fn draw_line(&mut self, start: Point, stop: Point, look: &StyleAttr, _: Option<String>) {
        self.draw_arrow(&[(start, start), (stop, stop)], false, (false, false), look, None, "");
    }
    // Ellipses and clips are never asked for: every shape here is a box.
    fn draw_circle(&mut self, _: Point, _: Point, _: &StyleAttr, _: Option<String>) {}
    fn create_clip(&mut self, _: Point, _: Point, _: usize) -> ClipHandle {
        0
    }
}
