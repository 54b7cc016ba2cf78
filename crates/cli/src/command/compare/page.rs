//! The comparison as one HTML file that needs no other: a table, curves, and the ranks of each layer where they change.
use super::{Comparison, report::Row};
use graft_ir::Result;
use graft_train::{
    compare::{Curve, History, Quantity, Ranks, svg},
    routing::{Domains, Routing},
};
use std::{collections::BTreeSet, fmt::Write as _};

/// At most this many moments are shown of a run's ranks.
const MAX_MOMENTS: usize = 48;

const STYLE: &str = "
body { font: 15px/1.5 system-ui, sans-serif; max-width: 72rem; margin: 2rem auto; padding: 0 1rem; color: #222; background: #fff }
h1 { font-size: 1.5rem } h2 { font-size: 1.15rem; margin-top: 2.2rem }
table { border-collapse: collapse; font-variant-numeric: tabular-nums }
th, td { padding: .25rem .55rem; text-align: right; border-bottom: 1px solid #ddd; white-space: nowrap }
th:first-child, td:first-child { text-align: left }
.wide { overflow-x: auto } svg { max-width: 100%; height: auto }
.ranks td { padding: .1rem .3rem; border: 0; font-size: .75rem; min-width: 1.2rem; text-align: center }
.ranks td:first-child { text-align: left } .error { color: #b00020; white-space: pre-wrap }
code { background: #f3f3f3; padding: 0 .2em; overflow-wrap: anywhere }
";

/// The page.
///
/// # Errors
/// As the drawing's.
pub(super) fn html(comparison: &Comparison) -> Result<String> {
    let rows = comparison.rows();
    let model = escaped(&comparison.contest.model.display().to_string());
    let mut page = format!(
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n<title>Adapter methods on {model}</title>\n\
         <style>{STYLE}</style>\n</head>\n<body>\n<h1>Adapter methods on {model}</h1>\n"
    );
    page += &conditions(comparison);
    page += &table(comparison);
    page += &failures(comparison);
    for quantity in Quantity::ALL {
        page += &curves(quantity, &rows)?;
    }
    page += &ranks(&rows);
    page += &routing(&rows);
    page += "</body>\n</html>\n";
    Ok(page)
}

/// What all runs had in common, and how the numbers are meant.
fn conditions(comparison: &Comparison) -> String {
    let contest = &comparison.contest;
    let budget = contest.entries.first().map_or(0, |e| e.budget);
    let flags: Vec<String> =
        contest.flags.iter().chain(&contest.select).map(|f| escaped(&f.to_string_lossy())).collect();
    let reference = match comparison.has_reference() {
        true => " Steps to LoRA’s best: the first step at which the mean loss is no higher than the lowest mean loss of <code>lora</code>.",
        false => "",
    };
    format!(
        "<p>The same data in the same order, {} seed(s) from {} on, {budget} trainable parameters as near as a rank comes \
         (a head aside; where ranks come and go, at their widest). Numbers are means ± standard deviations over the seeds; tokens/s are those of a run’s median step; \
         the peak is that of a process that does nothing but the run.{reference}</p>\n<p><code>graft train {} {}</code></p>\n",
        comparison.contest.seeds.clone().count(),
        contest.seeds.start,
        escaped(&contest.model.display().to_string()),
        flags.join(" "),
    )
}

fn table(comparison: &Comparison) -> String {
    let (header, rows) = comparison.cells();
    let line = |tag: &str, cells: &mut dyn Iterator<Item = &str>| {
        let cells: String = cells.map(|cell| format!("<{tag}>{}</{tag}>", escaped(cell))).collect();
        format!("<tr>{cells}</tr>\n")
    };
    let body: String = rows.iter().map(|row| line("td", &mut row.iter().map(String::as_str))).collect();
    format!("<div class=\"wide\"><table>\n{}{body}</table></div>\n", line("th", &mut header.iter().copied()))
}

fn failures(comparison: &Comparison) -> String {
    let one = |(label, run, error): (&str, &super::runs::Run, &str)| {
        format!("<p class=\"error\">{}, seed {}: {}</p>\n", escaped(label), run.seed, escaped(error))
    };
    comparison.failures().map(one).collect()
}

/// The picture of a quantity; nothing where no run has it.
fn curves(quantity: Quantity, rows: &[Row<'_>]) -> Result<String> {
    let curve = |row: &Row<'_>| (row.entry.label.clone(), quantity.curve(&row.histories()));
    let curves: Vec<(String, Curve)> = rows.iter().map(curve).filter(|(_, curve)| !curve.0.is_empty()).collect();
    if curves.is_empty() {
        return Ok(String::new());
    }
    Ok(format!("<h2>{}</h2>\n{}\n", quantity.name(), svg(quantity, &curves)?.trim()))
}

/// The ranks of each entry whose runs tell of them: those of the first seed.
fn ranks(rows: &[Row<'_>]) -> String {
    let maps = rows.iter().filter_map(|row| {
        let history = row.histories().into_iter().find(|h| !h.ranks.is_empty())?;
        Some(format!("<h2>ranks of {}</h2>\n{}", escaped(&row.entry.label), heat_map(history)))
    });
    maps.collect()
}

/// A row for each layer, a column for each moment.
fn heat_map(history: &History) -> String {
    let every = history.ranks.len().div_ceil(MAX_MOMENTS).max(1);
    let is_last = |i: usize| i + 1 == history.ranks.len();
    let moments: Vec<&(u64, Ranks)> =
        history.ranks.iter().enumerate().filter(|(i, _)| i % every == 0 || is_last(*i)).map(|(_, m)| m).collect();
    let layers: BTreeSet<&String> = moments.iter().flat_map(|(_, ranks)| ranks.keys()).collect();
    let highest = moments.iter().flat_map(|(_, ranks)| ranks.values()).max().copied().unwrap_or(1).max(1);
    let mut text = String::from("<div class=\"wide\"><table class=\"ranks\">\n<tr><td>after step</td>");
    moments.iter().for_each(|(step, _)| _ = write!(text, "<td>{step}</td>"));
    text += "</tr>\n";
    for layer in layers {
        let _ = write!(text, "<tr><td>{}</td>", escaped(layer));
        moments.iter().for_each(|(_, ranks)| text += &rank_cell(ranks.get(layer).copied(), highest));
        text += "</tr>\n";
    }
    text + "</table></div>\n"
}

/// The mean routing of each entry whose runs tell of it: that of the first seed.
fn routing(rows: &[Row<'_>]) -> String {
    let tables = rows.iter().filter_map(|row| {
        let history = row.histories().into_iter().find(|h| !h.routing.is_empty())?;
        Some(format!("<h2>routing of {}</h2>\n{}", escaped(&row.entry.label), routing_table(&history.routing)))
    });
    tables.collect()
}

/// A row for each layer, and for each domain as many columns as there are heads; the likelier, the darker.
fn routing_table(domains: &Domains) -> String {
    let heads = |routing: &Routing| routing.values().map(Vec::len).max().unwrap_or(0);
    let layers: BTreeSet<&String> = domains.values().flat_map(|routing| routing.keys()).collect();
    let mut text = String::from("<div class=\"wide\"><table class=\"ranks\">\n<tr><td>on the rows of</td>");
    for (domain, routing) in domains {
        let _ = write!(text, "<td colspan=\"{}\">{}</td>", heads(routing), escaped(domain));
    }
    text += "</tr>\n";
    for layer in layers {
        let _ = write!(text, "<tr><td>{}</td>", escaped(layer));
        for p in domains.values().flat_map(|routing| routing.get(layer)).flatten() {
            text += &share_cell(*p, &format!("{p:.2}"));
        }
        text += "</tr>\n";
    }
    text + "</table></div>\n"
}

/// The higher the rank, the darker the cell.
fn rank_cell(rank: Option<usize>, highest: usize) -> String {
    let Some(rank) = rank else { return "<td></td>".into() };
    share_cell(rank as f64 / highest as f64, &rank.to_string())
}

/// A cell that is the darker, the nearer `share` is to 1.
fn share_cell(share: f64, content: &str) -> String {
    let colour = if share > 0.6 { "#fff" } else { "#222" };
    format!("<td style=\"background:rgba(0,90,160,{share:.2});color:{colour}\">{content}</td>")
}

/// Text as HTML has it.
fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn routing_becomes_a_table() {
        let of = |p: f64| Routing::from([("up".to_string(), vec![p, 1.0 - p])]);
        let table = routing_table(&Domains::from([("a<b".to_string(), of(0.25)), ("all".to_string(), of(0.9))]));
        assert!(table.contains("<td colspan=\"2\">a&lt;b</td><td colspan=\"2\">all</td>"), "{table}");
        assert!(table.contains("rgba(0,90,160,0.25);color:#222\">0.25<") && table.contains("color:#fff\">0.90<"), "{table}");
    }

    #[test]
    fn ranks_become_a_map() {
        let ranks = |up: usize| Ranks::from([("up".to_string(), up), ("a<b".to_string(), 1)]);
        let history = History { ranks: (0..100).map(|i| (i, ranks(i as usize))).collect(), ..History::default() };
        let map = heat_map(&history);
        assert_eq!(map.matches("<tr>").count(), 3, "a head and two layers");
        assert!(map.matches("<td").count() <= 3 * (MAX_MOMENTS + 2) && map.contains("<td>99</td>"), "{map}");
        assert!(map.contains("a&lt;b") && map.contains("rgba(0,90,160,1.00);color:#fff\">99"), "{map}");
        assert_eq!(rank_cell(None, 4), "<td></td>");
    }
}
