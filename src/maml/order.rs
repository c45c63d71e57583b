//! The order in which blocks run: each after those that it needs, else by place.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, HashSet};

use crate::blocks::Block;
use crate::codes::Code;
use crate::diagnostic::{Findings, Severity, nearest};
use crate::place::Span;

/// So many missing blocks are named, each with what was probably meant; the document is refused for the first already.
const MAX_MISSING: usize = 50;

/// Indices of the blocks in the order of their run. Blocks that need one another in a circle come last, by place.
pub(crate) fn run_order(blocks: &[Block]) -> Vec<usize> {
    let needs = needs(blocks);
    let mut order = in_order(&needs, &vec![false; blocks.len()]);
    let mut placed = vec![false; blocks.len()];
    for index in &order {
        placed[*index] = true;
    }
    order.extend((0..blocks.len()).filter(|index| !placed[*index]));
    order
}

/// Reports blocks that need what is not there, or one another. `spans` are the places where each block names its needs.
pub(crate) fn check(blocks: &[Block], spans: &[Span], severity: Severity, findings: &mut Findings<'_>) {
    let names: Vec<&str> = blocks.iter().map(|block| block.name.as_str()).collect();
    let known: HashSet<&str> = names.iter().copied().collect();
    let needed = |(block, span)| {
        let Block { name, needs, .. }: &Block = block;
        needs.iter().map(move |need| (name, need, span))
    };
    let missing = blocks
        .iter()
        .zip(spans)
        .flat_map(needed)
        .filter(|(_, need, _)| !known.contains(need.as_str()));
    for (name, need, span) in missing.take(MAX_MISSING) {
        let hint = match nearest(need, &names) {
            Some(near) => format!("did you mean `{near}`?"),
            None => format!("blocks of this document: {}", names.join(", ")),
        };
        let message = format!("`{name}` needs the block `{need}`, which is not there");
        findings.add(Code::NeedUnknown, severity, *span, message, hint);
    }
    let needs = needs(blocks);
    let mut settled = vec![false; blocks.len()];
    loop {
        for index in in_order(&needs, &settled) {
            settled[index] = true;
        }
        let Some(first) = settled.iter().position(|settled| !settled) else {
            return;
        };
        let circle = circle(&needs, &settled, first);
        let mut path: Vec<&str> = circle.iter().map(|index| names[*index]).collect();
        path.push(path[0]);
        let message = format!("blocks need one another in a circle: {}", path.join(" → "));
        let hint = "leave out one of these needs".to_owned();
        findings.add(Code::NeedCircle, severity, spans[circle[0]], message, hint);
        for index in circle {
            settled[index] = true;
        }
    }
}

/// For each block the indices of those that it needs. A name that is not there is passed over.
fn needs(blocks: &[Block]) -> Vec<Vec<usize>> {
    let mut places = HashMap::new();
    for (index, block) in blocks.iter().enumerate() {
        places.entry(block.name.as_str()).or_insert(index);
    }
    let place = |name: &String| places.get(name.as_str()).copied();
    blocks
        .iter()
        .map(|block| block.needs.iter().filter_map(place).collect())
        .collect()
}

/// The blocks that can run when the `settled` ones have, each as early as its place and its needs allow.
fn in_order(needs: &[Vec<usize>], settled: &[bool]) -> Vec<usize> {
    let mut needed_by = vec![Vec::new(); needs.len()];
    let mut waiting = vec![0_usize; needs.len()];
    for (index, needs) in needs.iter().enumerate() {
        for need in needs.iter().filter(|need| !settled[**need]) {
            waiting[index] += 1;
            needed_by[*need].push(index);
        }
    }
    let mut ready: BinaryHeap<Reverse<usize>> = (0..needs.len())
        .filter(|index| !settled[*index] && waiting[*index] == 0)
        .map(Reverse)
        .collect();
    let mut order = Vec::with_capacity(needs.len());
    while let Some(Reverse(index)) = ready.pop() {
        order.push(index);
        for next in &needed_by[index] {
            waiting[*next] -= 1;
            if waiting[*next] == 0 && !settled[*next] {
                ready.push(Reverse(*next));
            }
        }
    }
    order
}

/// A circle that is reached from `start`, a block that waits for ever, as every block that it waits for does.
fn circle(needs: &[Vec<usize>], settled: &[bool], start: usize) -> Vec<usize> {
    let mut path = vec![start];
    let mut current = start;
    while let Some(next) = needs[current].iter().copied().find(|need| !settled[*need]) {
        if let Some(begin) = path.iter().position(|index| *index == next) {
            path.drain(..begin);
            break;
        }
        path.push(next);
        current = next;
    }
    path
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::blocks::Language;
    use crate::place::Text;
    use proptest::prelude::*;

    fn block(name: &str, needs: &[&str]) -> Block {
        Block {
            name: name.to_owned(),
            language: Language::Python,
            code: String::new(),
            span: Span::default(),
            line: 1,
            needs: needs.iter().map(ToString::to_string).collect(),
            timeout_seconds: None,
            allow_failure: false,
        }
    }

    fn findings(blocks: &[Block]) -> Vec<String> {
        let text = Text::new("");
        let mut findings = Findings::new(&text);
        let spans = vec![Span::default(); blocks.len()];
        check(blocks, &spans, Severity::Error, &mut findings);
        let found = findings.finish();
        found
            .iter()
            .map(|found| format!("{} {}", found.code, found.message))
            .collect()
    }

    #[test]
    #[expect(clippy::type_complexity, reason = "a table of cases")]
    fn blocks_run_after_those_they_need_else_by_place() {
        let cases: &[(&[(&str, &[&str])], &[usize])] = &[
            (&[("a", &[]), ("b", &[]), ("c", &[])], &[0, 1, 2]),
            (&[("a", &["c"]), ("b", &[]), ("c", &[])], &[1, 2, 0]),
            (&[("a", &["b"]), ("b", &["c"]), ("c", &[])], &[2, 1, 0]),
            (&[("a", &["x"]), ("b", &["a"])], &[0, 1]),
            (&[("a", &["b"]), ("b", &["a"]), ("c", &[])], &[2, 0, 1]),
            (&[], &[]),
        ];
        for (blocks, expected) in cases {
            let blocks: Vec<Block> = blocks.iter().map(|(name, needs)| block(name, needs)).collect();
            assert_eq!(run_order(&blocks), *expected);
        }
    }

    #[test]
    fn circles_and_missing_needs_are_named() {
        let blocks = [
            block("start", &["b"]),
            block("b", &["c"]),
            block("c", &["b"]),
            block("self", &["self"]),
            block("last", &["strat"]),
        ];
        assert_eq!(
            findings(&blocks),
            [
                "MAML058 `last` needs the block `strat`, which is not there",
                "MAML059 blocks need one another in a circle: b → c → b",
                "MAML059 blocks need one another in a circle: self → self",
            ]
        );
    }

    proptest! {
        #[test]
        fn the_order_is_a_permutation_that_respects_needs(
            needs in prop::collection::vec(prop::collection::vec(0_usize..20, 0..4), 0..20),
        ) {
            let blocks: Vec<Block> = needs.iter().enumerate().map(|(index, needs)| {
                let names: Vec<String> = needs.iter().map(|need| format!("b{need}")).collect();
                block(&format!("b{index}"), &names.iter().map(String::as_str).collect::<Vec<_>>())
            }).collect();
            let order = run_order(&blocks);
            let mut sorted = order.clone();
            sorted.sort_unstable();
            prop_assert_eq!(sorted, (0..blocks.len()).collect::<Vec<_>>());
            let found = findings(&blocks);
            if !found.iter().any(|line| line.starts_with("MAML059")) {
                let at = |wanted: usize| order.iter().position(|index| *index == wanted).unwrap();
                for (index, needs) in needs.iter().enumerate() {
                    for need in needs.iter().filter(|need| **need < blocks.len()) {
                        prop_assert!(at(*need) < at(index), "{order:?}");
                    }
                }
            }
        }
    }
}
