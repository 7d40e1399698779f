//! What a node says of all nodes: `CLUSTER NODES`, read.

use topology::{NodeAddr, NodeId, Slot};

/// One line of `CLUSTER NODES`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Line {
    pub(super) id: NodeId,
    /// As nodes reach each other; `None` when the node that answers does not know.
    pub(super) addr: Option<NodeAddr>,
    pub(super) bus_port: Option<u16>,
    pub(super) myself: bool,
    pub(super) primary: Option<NodeId>,
    pub(super) replica: bool,
    /// Dead, by what most say, or of no known address.
    pub(super) failed: bool,
    pub(super) handshake: bool,
    pub(super) epoch: u64,
    pub(super) slots: Vec<Slot>,
    /// Of `myself` alone: slots that are half moved.
    pub(super) open: Vec<Open>,
}

/// A slot that is half moved, by the word of one node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Open {
    pub(crate) slot: Slot,
    /// From here to there, or from there to here.
    pub(crate) way: Way,
    pub(crate) other: NodeId,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    Migrating,
    Importing,
}

/// All lines that can be read; others are of no node.
pub(super) fn read(text: &str) -> Vec<Line> {
    text.lines().filter_map(line).collect()
}

fn line(text: &str) -> Option<Line> {
    let mut words = text.split_ascii_whitespace();
    let id = NodeId::parse(words.next()?.as_bytes())?;
    let (addr, bus_port) = place(words.next()?);
    let flags: Vec<&str> = words.next()?.split(',').collect();
    let primary = NodeId::parse(words.next()?.as_bytes());
    let epoch = words.nth(2)?.parse().ok()?;
    let _link_state = words.next()?;
    let (mut slots, mut open) = (Vec::new(), Vec::new());
    for word in words {
        match word
            .strip_prefix('[')
            .and_then(|word| word.strip_suffix(']'))
        {
            Some(inside) => open.extend(half_moved(inside)),
            None => slots.extend(range(word).into_iter().flatten()),
        }
    }
    let has = |flag: &str| flags.contains(&flag);
    Some(Line {
        id,
        addr,
        bus_port,
        myself: has("myself"),
        primary,
        replica: has("slave") || has("replica"),
        failed: has("fail") || has("noaddr"),
        handshake: has("handshake"),
        epoch,
        slots,
        open,
    })
}

/// `ip:port@bus,hostname,...`; the node itself may not know its address.
fn place(word: &str) -> (Option<NodeAddr>, Option<u16>) {
    let address = word.split(',').next().unwrap_or_default();
    let (client, bus) = address.split_once('@').unwrap_or((address, ""));
    (NodeAddr::parse(client), bus.parse().ok())
}

/// `5000->-ID` and `5000-<-ID`.
fn half_moved(inside: &str) -> Option<Open> {
    let (slot, way, other) = match inside.split_once("->-") {
        Some((slot, other)) => (slot, Way::Migrating, other),
        None => {
            let (slot, other) = inside.split_once("-<-")?;
            (slot, Way::Importing, other)
        }
    };
    Some(Open {
        slot: Slot::new(slot.parse().ok()?)?,
        way,
        other: NodeId::parse(other.as_bytes())?,
    })
}

/// `5` and `5-9`.
pub(super) fn range(word: &str) -> Option<impl Iterator<Item = Slot> + use<>> {
    let (first, last) = word.split_once('-').unwrap_or((word, word));
    let (first, last): (u16, u16) = (first.parse().ok()?, last.parse().ok()?);
    Some((first..=last).filter_map(Slot::new))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: &str = "ecc1b23b47452b85c37c699c91e3a925fe58d299";
    const TWO: &str = "902c98faa5c3a90cccf5bd9047d12f08aa4606ce";

    fn id(text: &str) -> NodeId {
        NodeId::parse(text.as_bytes()).unwrap()
    }

    #[test]
    fn lines_are_nodes_with_slots_and_slots_that_are_half_moved() {
        let text = format!(
            "{ONE} 127.0.0.1:27001@37001 myself,master - 0 0 5 connected 100-102 300 \
             [5000->-{TWO}] [77-<-{TWO}]\n\
             {TWO} 10.0.0.2:6379@16379,node-2.example,shard-id=x slave,fail? {ONE} 0 17 6 connected\n\
             nonsense\n"
        );
        let lines = read(&text);
        assert_eq!(lines.len(), 2);
        let own = &lines[0];
        assert!(own.myself && !own.replica && !own.failed);
        assert_eq!((own.epoch, own.bus_port), (5, Some(37001)));
        let slots: Vec<u16> = own.slots.iter().map(|slot| slot.get()).collect();
        assert_eq!(slots, [100, 101, 102, 300]);
        let open: Vec<(u16, Way)> = own.open.iter().map(|o| (o.slot.get(), o.way)).collect();
        assert_eq!(open, [(5000, Way::Migrating), (77, Way::Importing)]);
        assert_eq!(own.open[0].other, id(TWO));
        let other = &lines[1];
        assert_eq!(other.primary, Some(id(ONE)));
        assert!(other.replica && !other.failed, "it is only suspected");
        assert_eq!(other.addr, NodeAddr::new("10.0.0.2", 6379));
    }

    #[test]
    fn a_node_that_is_alone_does_not_know_its_address() {
        let lines = read(&format!(
            "{ONE} :27003@37003 myself,master - 0 0 0 connected\n"
        ));
        assert_eq!(
            (lines[0].addr.clone(), lines[0].bus_port),
            (None, Some(37003))
        );
    }
}
