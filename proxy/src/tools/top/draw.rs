//! What the screen shows. Every colour has a letter or a word beside it.

use ratatui::{
    Frame,
    layout::{Constraint, Layout, Rect},
    style::{Color, Modifier, Style},
    text::{Line, Span},
    widgets::{Block, Cell, Paragraph, Row, Sparkline, Table},
};

use super::{Seen, parts, time};
use crate::{
    events::unix_ms,
    report::{Node, Shard},
    tools::ago,
};

/// Slots of a cluster.
const SLOTS: usize = 16_384;
/// Lines of the slot strip.
const STRIP_LINES: u16 = 3;
/// Told apart by those who see few colours (Okabe and Ito).
const PALETTE: [Color; 7] = [
    Color::Rgb(86, 180, 233),
    Color::Rgb(230, 159, 0),
    Color::Rgb(0, 158, 115),
    Color::Rgb(240, 228, 66),
    Color::Rgb(0, 114, 178),
    Color::Rgb(213, 94, 0),
    Color::Rgb(204, 121, 167),
];
/// A shard's letter, repeated from the 62nd on.
const LETTERS: &[u8] = b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789";

/// Draws everything.
pub(super) fn screen(frame: &mut Frame<'_>, seen: &Seen, colours: bool) {
    let nodes = u16::try_from(seen.status.nodes.len()).unwrap_or(u16::MAX);
    let layout = Layout::vertical([
        Constraint::Length(2),
        Constraint::Length(4),
        Constraint::Length(1),
        Constraint::Length(STRIP_LINES + 1),
        Constraint::Length(nodes.saturating_add(2)),
        Constraint::Min(3),
    ]);
    let [head, rate, time_goes, strip, table, events] = layout.areas(frame.area());
    header(frame, head, seen);
    requests(frame, rate, seen);
    frame.render_widget(
        Paragraph::new(format!(" {}", parts(&seen.status))),
        time_goes,
    );
    slots(frame, strip, seen, colours);
    node_table(frame, table, seen, colours);
    changes(frame, events, seen);
}

fn bold(text: String) -> Span<'static> {
    Span::styled(text, Style::new().add_modifier(Modifier::BOLD))
}

fn header(frame: &mut Frame<'_>, area: Rect, seen: &Seen) {
    let status = &seen.status;
    let state = match (&seen.trouble, &status.not_ready_because) {
        (Some(trouble), _) => trouble.clone(),
        (None, Some(reason)) => format!("NOT READY: {reason}"),
        (None, None) => "ready".to_owned(),
    };
    let zone = status.zone.as_deref().unwrap_or("no zone");
    let least = status
        .certificates
        .iter()
        .filter_map(|certificate| certificate.days_left)
        .min();
    let certificates =
        least.map_or_else(String::new, |days| format!(", certificates: {days} days"));
    let lines = vec![
        Line::from(vec![
            bold(format!("keyway {}  {state}", status.version)),
            Span::raw(format!(
                "  up {}  {zone}  {} workers{certificates}  (q ends)",
                time(status.uptime_s.checked_mul(1_000_000)),
                status.workers
            )),
        ]),
        Line::raw(format!(
            "{} clients  {} in flight  revision {}  {} of {SLOTS} slots  Valkey {}",
            status.clients.now,
            status.in_flight,
            status.cluster.revision,
            status.cluster.slots_covered,
            status.cluster.version
        )),
    ];
    frame.render_widget(Paragraph::new(lines), area);
}

fn requests(frame: &mut Frame<'_>, area: Rect, seen: &Seen) {
    let (whole, server) = (&seen.status.latency.request, &seen.status.latency.server);
    let title = format!(
        " {:.0} requests/s   p50 {}  p99 {}  p999 {}   nodes: p50 {}  p99 {} ",
        seen.status.requests.per_second,
        time(whole.p50_us),
        time(whole.p99_us),
        time(whole.p999_us),
        time(server.p50_us),
        time(server.p99_us),
    );
    let history = seen.status.history.iter();
    let width = usize::from(area.width);
    let skipped = seen.status.history.len().saturating_sub(width);
    let values: Vec<u64> = history
        .skip(skipped)
        .map(|second| second.requests)
        .collect();
    let spark = Sparkline::default()
        .data(&values)
        .block(Block::new().title(title));
    frame.render_widget(spark, area);
}

fn letter(shard: usize) -> char {
    let letter = LETTERS.get(shard % LETTERS.len()).copied().unwrap_or(b'?');
    char::from(letter)
}

fn colour(shard: usize, colours: bool) -> Style {
    match PALETTE.get(shard % PALETTE.len()) {
        Some(colour) if colours => Style::new().fg(*colour),
        _ => Style::new(),
    }
}

/// Who owns the slot.
fn owner(shards: &[Shard], slot: u16) -> Option<usize> {
    let owns = |shard: &&Shard| {
        let mut ranges = shard.ranges.iter();
        ranges.any(|(first, last)| (*first..=*last).contains(&slot))
    };
    shards.iter().find(owns).map(|shard| shard.index)
}

fn slots(frame: &mut Frame<'_>, area: Rect, seen: &Seen, colours: bool) {
    let width = usize::from(area.width).max(1);
    let cells = width * usize::from(STRIP_LINES);
    let shards = &seen.topology.shards;
    let cell = |index: usize| {
        let slot = u16::try_from(index * SLOTS / cells).unwrap_or(u16::MAX);
        match owner(shards, slot) {
            Some(shard) => Span::styled(letter(shard).to_string(), colour(shard, colours)),
            None => Span::styled("!", Style::new().add_modifier(Modifier::REVERSED)),
        }
    };
    let mut lines = vec![Line::raw(format!(
        "slots: {} each, by shard",
        SLOTS.div_ceil(cells)
    ))];
    for line in 0..usize::from(STRIP_LINES) {
        let cells = (line * width..(line + 1) * width).map(cell);
        lines.push(Line::from(cells.collect::<Vec<_>>()));
    }
    frame.render_widget(Paragraph::new(lines), area);
}

fn node_table(frame: &mut Frame<'_>, area: Rect, seen: &Seen, colours: bool) {
    let header = [
        "shard", "node", "role", "zone", "health", "lag", "conns", "flight", "p50", "p99", "",
    ];
    let mut nodes: Vec<&Node> = seen.status.nodes.iter().collect();
    nodes.sort_by_key(|node| (node.zone.clone(), node.shard, node.role.clone()));
    let rows = nodes.into_iter().map(|node| {
        let live = &node.live;
        let number = |number: usize| Cell::from(number.to_string());
        let bad = node.health != "online" || live.trouble.is_some();
        let row = Row::new([
            Cell::from(letter(node.shard).to_string()).style(colour(node.shard, colours)),
            Cell::from(node.address.clone()),
            Cell::from(node.role.clone()),
            Cell::from(node.zone.clone().unwrap_or_default()),
            Cell::from(node.health.clone()),
            Cell::from(
                node.lag_ms
                    .map_or_else(String::new, |lag| format!("{lag} ms")),
            ),
            number(live.connections),
            number(live.in_flight),
            Cell::from(time(live.latency.p50_us)),
            Cell::from(time(live.latency.p99_us)),
            Cell::from(live.trouble.clone().unwrap_or_default()),
        ]);
        if bad {
            row.style(Style::new().add_modifier(Modifier::REVERSED))
        } else {
            row
        }
    });
    let widths = [
        Constraint::Length(5),
        Constraint::Min(16),
        Constraint::Length(7),
        Constraint::Length(10),
        Constraint::Length(7),
        Constraint::Length(8),
        Constraint::Length(5),
        Constraint::Length(6),
        Constraint::Length(7),
        Constraint::Length(7),
        Constraint::Max(40),
    ];
    let head = Row::new(header).style(Style::new().add_modifier(Modifier::BOLD));
    frame.render_widget(Table::new(rows, widths).header(head), area);
}

fn changes(frame: &mut Frame<'_>, area: Rect, seen: &Seen) {
    let now = unix_ms();
    let mut lines = vec![Line::from(bold("changes".to_owned()))];
    let events = seen.topology.events.iter().rev();
    let room = usize::from(area.height).saturating_sub(1);
    lines.extend(events.take(room).map(|event| {
        let ago = ago(event.until_ms, now);
        Line::raw(format!("{ago:>12}  {} ({})", event.what, event.why))
    }));
    frame.render_widget(Paragraph::new(lines), area);
}

#[cfg(test)]
mod tests {
    use ratatui::{Terminal, backend::TestBackend};

    use super::*;
    use crate::{
        events::{Event, Kind},
        report::{Certificate, Status, Topology},
    };

    fn seen() -> Seen {
        let node = |address: &str, shard, role: &str| Node {
            address: address.to_owned(),
            shard,
            role: role.to_owned(),
            zone: Some("az-a".to_owned()),
            health: "online".to_owned(),
            lag_ms: Some(12),
            ..Node::default()
        };
        let nodes = vec![
            node("10.0.0.1:6379", 0, "primary"),
            node("10.0.0.2:6379", 1, "primary"),
        ];
        let shard = |index, ranges| Shard {
            index,
            ranges,
            ..Shard::default()
        };
        Seen {
            status: Status {
                nodes,
                certificates: vec![Certificate {
                    days_left: Some(9),
                    ..Certificate::default()
                }],
                ..Status::default()
            },
            topology: Topology {
                shards: vec![shard(0, vec![(0, 8191)]), shard(1, vec![(8192, 12_000)])],
                events: vec![Event {
                    at_ms: 1,
                    until_ms: 1,
                    revision: 2,
                    kind: Kind::Failover,
                    what: "10.0.0.1:6379 became primary".to_owned(),
                    why: "a node redirected a command".to_owned(),
                    slots: None,
                    node: None,
                }],
                ..Topology::default()
            },
            trouble: None,
        }
    }

    fn drawn(width: u16, height: u16, colours: bool) -> (String, bool) {
        let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
        terminal
            .draw(|frame| screen(frame, &seen(), colours))
            .unwrap();
        let buffer = terminal.backend().buffer();
        let rows = buffer.content().chunks(usize::from(width));
        let rows = rows.map(|row| row.iter().map(|cell| cell.symbol()).collect::<String>());
        let coloured = buffer.content().iter().any(|cell| cell.fg != Color::Reset);
        (rows.collect::<Vec<_>>().join("\n"), coloured)
    }

    #[test]
    fn everything_is_on_the_screen_without_colour_too() {
        for colours in [true, false] {
            let (text, coloured) = drawn(120, 30, colours);
            assert_eq!(coloured, colours);
            for part in [
                "ready",
                "certificates: 9 days",
                "10.0.0.1:6379",
                "az-a",
                "12 ms",
                "became primary",
                "client TLS -/-, queue",
                "aaaaaaaa",
                "bbbbbbbb",
                "!!!!!!!!",
            ] {
                assert!(text.contains(part), "no {part} in\n{text}");
            }
        }
    }

    #[test]
    fn a_small_terminal_is_no_reason_to_fail() {
        for (width, height) in [(1, 1), (20, 5), (80, 10), (300, 100)] {
            let _ = drawn(width, height, true);
        }
    }
}
