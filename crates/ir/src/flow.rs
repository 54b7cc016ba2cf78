//! How values flow: who defines and who uses each value, and the graph as petgraph's algorithms see it.
//!
//! Nodes are vertices, numbered as in `Graph::nodes`; an edge leads from the node that defines a value to each node
//! that reads it. Everything is in the order of the graph, so that results are deterministic.
use crate::{Graph, Node, Value};
use petgraph::{
    Direction,
    algo::{dominators, dominators::Dominators, kosaraju_scc, toposort},
    visit::{
        Dfs, GraphBase, IntoNeighbors, IntoNeighborsDirected, IntoNodeIdentifiers, NodeCompactIndexable,
        NodeCount, NodeIndexable, Reversed, Visitable,
    },
};
use std::{
    collections::{BTreeSet, HashSet},
    iter::Copied,
    slice::Iter,
};

/// Which node defines a value and which nodes read it, for every value of a graph. It is a picture of the graph at
/// one moment: compute it again after editing.
#[derive(Clone, Debug, Default)]
pub struct Uses {
    def: Vec<Option<usize>>,
    users: Vec<Vec<usize>>,
    returned: HashSet<Value>,
}

impl Uses {
    /// Looks at every node of `graph` once.
    pub fn new(graph: &Graph) -> Uses {
        let n = graph.values.len();
        let returned = graph.outputs.iter().copied().collect();
        let mut uses = Uses { def: vec![None; n], users: vec![Vec::new(); n], returned };
        for (i, node) in graph.nodes.iter().enumerate() {
            for v in node.defines() {
                if let Some(def @ None) = uses.def.get_mut(v.0 as usize) {
                    *def = Some(i);
                }
            }
            for v in node.reads() {
                if let Some(users) = uses.users.get_mut(v.0 as usize)
                    && users.last() != Some(&i)
                {
                    users.push(i);
                }
            }
        }
        uses
    }
    /// The node that defines `v`; `None` for inputs, params and captures.
    pub fn def(&self, v: Value) -> Option<usize> {
        self.def.get(v.0 as usize).copied().flatten()
    }
    /// The nodes that read `v`, in order, each once.
    pub fn users(&self, v: Value) -> &[usize] {
        self.users.get(v.0 as usize).map_or(&[], Vec::as_slice)
    }
    /// Whether `v` is an output of the graph.
    pub fn is_output(&self, v: Value) -> bool {
        self.returned.contains(&v)
    }
    /// Whether nothing but node `user` needs `v`.
    pub fn only_user(&self, v: Value, user: usize) -> bool {
        self.users(v) == [user] && !self.is_output(v)
    }
}

/// A graph as petgraph sees it; implements its visit traits.
pub struct Flow<'g> {
    graph: &'g Graph,
    uses: Uses,
    after: Vec<Vec<usize>>,
    before: Vec<Vec<usize>>,
    edges: Vec<(usize, usize, Value)>,
}

impl<'g> Flow<'g> {
    /// The view of `graph`, which need not be valid: cycles and missing definitions are allowed.
    pub fn new(graph: &'g Graph) -> Flow<'g> {
        let uses = Uses::new(graph);
        let n = graph.nodes.len();
        let mut flow =
            Flow { graph, uses, after: vec![Vec::new(); n], before: vec![Vec::new(); n], edges: Vec::new() };
        for (i, node) in graph.nodes.iter().enumerate() {
            let mut seen = HashSet::new();
            for v in node.reads().filter(|v| seen.insert(*v)) {
                let Some(def) = flow.uses.def(v) else { continue };
                flow.edges.push((def, i, v));
                if flow.after[def].last() != Some(&i) {
                    flow.after[def].push(i);
                    flow.before[i].push(def);
                }
            }
        }
        flow
    }
    /// Who defines and uses each value.
    pub fn uses(&self) -> &Uses {
        &self.uses
    }
    /// A node.
    pub fn node(&self, i: usize) -> &'g Node {
        &self.graph.nodes[i]
    }
    /// An order in which every node comes after those it reads from; the graph's own where that is one already.
    /// The error is a cycle, as [`Flow::cycles`] gives it.
    pub fn order(&self) -> Result<Vec<usize>, Vec<usize>> {
        if self.edges.iter().all(|(from, to, _)| from < to) {
            return Ok((0..self.graph.nodes.len()).collect());
        }
        toposort(self, None).map_err(|_| self.cycles().into_iter().next().unwrap_or_default())
    }
    /// One cycle for each knot of nodes that wait for one another: the nodes along it, the earliest first.
    ///
    /// The knots are strongly connected components. petgraph's Kosaraju is used rather than its Tarjan, which
    /// recurses, because this runs on models that nobody has checked yet.
    pub fn cycles(&self) -> Vec<Vec<usize>> {
        let knots = kosaraju_scc(self).into_iter().map(|scc| scc.into_iter().collect::<BTreeSet<_>>());
        let mut cycles: Vec<_> = knots.filter_map(|knot| self.cycle_within(&knot)).collect();
        cycles.sort();
        cycles
    }
    fn cycle_within(&self, knot: &BTreeSet<usize>) -> Option<Vec<usize>> {
        let mut path = vec![*knot.first()?];
        loop {
            let next = *self.after[*path.last()?].iter().find(|n| knot.contains(n))?;
            if let Some(start) = path.iter().position(|&n| n == next) {
                let mut cycle = path.split_off(start);
                let first = cycle.iter().position(|n| Some(n) == cycle.iter().min()).unwrap_or(0);
                cycle.rotate_left(first);
                return Some(cycle);
            }
            path.push(next);
        }
    }
    /// Every value that depends on one of `sources`, themselves included: what lies on the way of their gradients.
    pub fn depends_on(&self, sources: &[Value]) -> HashSet<Value> {
        let mut dependent: HashSet<Value> = sources.iter().copied().collect();
        let mut dfs = Dfs::empty(self);
        for start in sources.iter().flat_map(|&v| self.uses.users(v)) {
            dfs.stack.push(*start);
        }
        while let Some(i) = dfs.next(self) {
            dependent.extend(self.graph.nodes[i].defines());
        }
        dependent
    }
    /// The nodes that `targets` need, directly or not.
    pub fn needed_by(&self, targets: &[Value]) -> HashSet<usize> {
        let reversed = Reversed(self);
        let mut dfs = Dfs::empty(reversed);
        dfs.stack.extend(targets.iter().filter_map(|&v| self.uses.def(v)));
        std::iter::from_fn(|| dfs.next(reversed)).collect()
    }
    /// For the region that `root` reaches: which node every path from `root` must pass to get to another.
    pub fn dominators(&self, root: usize) -> Dominators<usize> {
        dominators::simple_fast(self, root)
    }
}

impl GraphBase for Flow<'_> {
    type NodeId = usize;
    type EdgeId = (usize, usize);
}

impl NodeCount for Flow<'_> {
    fn node_count(&self) -> usize {
        self.graph.nodes.len()
    }
}

impl NodeIndexable for Flow<'_> {
    fn node_bound(&self) -> usize {
        self.graph.nodes.len()
    }
    fn to_index(&self, i: usize) -> usize {
        i
    }
    fn from_index(&self, i: usize) -> usize {
        i
    }
}

impl NodeCompactIndexable for Flow<'_> {}

impl Visitable for Flow<'_> {
    type Map = HashSet<usize>;
    fn visit_map(&self) -> HashSet<usize> {
        HashSet::new()
    }
    fn reset_map(&self, map: &mut HashSet<usize>) {
        map.clear();
    }
}

impl<'a> IntoNeighbors for &'a Flow<'_> {
    type Neighbors = Copied<Iter<'a, usize>>;
    fn neighbors(self, i: usize) -> Self::Neighbors {
        self.after[i].iter().copied()
    }
}

impl<'a> IntoNeighborsDirected for &'a Flow<'_> {
    type NeighborsDirected = Copied<Iter<'a, usize>>;
    fn neighbors_directed(self, i: usize, direction: Direction) -> Self::NeighborsDirected {
        match direction {
            Direction::Outgoing => self.after[i].iter().copied(),
            Direction::Incoming => self.before[i].iter().copied(),
        }
    }
}

impl IntoNodeIdentifiers for &Flow<'_> {
    type NodeIdentifiers = std::ops::Range<usize>;
    fn node_identifiers(self) -> Self::NodeIdentifiers {
        0..self.graph.nodes.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::parse;

    fn diamond() -> Graph {
        parse(
            "g (float[2] x, float[2] w) => (float[2] y) {
                 a = Relu (x)
                 b = Mul (a, w)
                 c = Neg (a)
                 y = Add (b, c)
             }",
        )
        .unwrap()
    }

    #[test]
    fn users_and_definitions() {
        let graph = diamond();
        let uses = Uses::new(&graph);
        let v = |name: &str| graph.find(name).unwrap();
        assert_eq!(uses.def(v("b")), Some(1));
        assert_eq!(uses.def(v("x")), None);
        assert_eq!(uses.users(v("a")), [1, 2]);
        assert!(uses.is_output(v("y")) && !uses.only_user(v("a"), 1) && uses.only_user(v("b"), 3));
    }

    #[test]
    fn reaches_forwards_and_backwards() {
        let graph = diamond();
        let flow = Flow::new(&graph);
        let v = |name: &str| graph.find(name).unwrap();
        let mut names: Vec<&str> = flow.depends_on(&[v("w")]).into_iter().map(|v| graph.name(v)).collect();
        names.sort_unstable();
        assert_eq!(names, ["b", "w", "y"]);
        let mut nodes: Vec<usize> = flow.needed_by(&[v("c")]).into_iter().collect();
        nodes.sort_unstable();
        assert_eq!(nodes, [0, 2]);
        assert_eq!(flow.order(), Ok(vec![0, 1, 2, 3]));
        assert_eq!(flow.dominators(0).immediate_dominator(3), Some(0));
    }

    #[test]
    fn sorts_what_is_out_of_order() {
        let mut graph = diamond();
        graph.nodes.reverse();
        let order = Flow::new(&graph).order().unwrap();
        graph.nodes = order.iter().map(|&i| graph.nodes[i].clone()).collect();
        assert!(Flow::new(&graph).edges.iter().all(|(from, to, _)| from < to));
    }

    #[test]
    fn names_cycles() {
        let text = "g () => (e) { a = F (c) b = F (a) c = F (b, c) d = F (c) e = F (e2) e2 = F (e) }";
        let graph = parse(text).unwrap();
        let flow = Flow::new(&graph);
        assert_eq!(flow.cycles(), [vec![0, 1, 2], vec![4, 5]]);
        assert!(flow.order().is_err());
        assert_eq!(Flow::new(&diamond()).cycles(), Vec::<Vec<usize>>::new());
    }
}
