//! A tree of labels: which of them exclude each other, and which imply which.

use serde::{Deserialize, Serialize};

/// Labels with parents, in groups that exclude each other.
///
/// Labels are numbered so that those of one group lie side by side: a group of several is a softmax head, and the labels behind the last head
/// stand by themselves, a sigmoid each. An image that has a label has its ancestors too.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tree {
    /// Each label's parent, by index.
    parents: Vec<Option<usize>>,
    /// Labels of each softmax head; the heads follow one another from label 0 on.
    heads: Vec<usize>,
    /// Labels by themselves that no training image lacks where it has their parent: a prediction has them with it.
    #[serde(default)]
    implied: Vec<usize>,
}

/// Most levels of a tree: what walks it may call itself once a level.
const DEEPEST: usize = 64;

/// What decides together: a head, or a label by itself.
type Unit = std::ops::Range<usize>;

impl Tree {
    /// A tree of labels called `names`. `groups` holds labels that exclude each other; labels in none of them, or in one of their own, stand by
    /// themselves. Returns the tree and, in its order, which of `names` each of its labels is.
    ///
    /// # Errors
    /// One line: a circle of parents, a label in two groups, groups that exclude a label and its ancestor or wait for each other.
    pub fn new(
        names: &[String],
        parents: &[Option<usize>],
        groups: &[Vec<usize>],
    ) -> Result<(Self, Vec<usize>), String> {
        check_circles(names, parents)?;
        let mut group_of = vec![None; names.len()];
        for (number, group) in groups.iter().enumerate() {
            for &label in group {
                if group_of[label].replace(number).is_some() {
                    return Err(format!("label {:?} is in two groups; keep it in one", names[label]));
                }
            }
        }
        let mut heads: Vec<&Vec<usize>> = groups.iter().filter(|group| group.len() > 1).collect();
        // Parents first, so that labels come as a reader expects them.
        heads.sort_by_key(|head| head.iter().map(|&label| (depth(parents, label), parents[label])).min());
        for head in &heads {
            let above = |label: usize| std::iter::successors(parents[label], |&label| parents[label]);
            let within = |&&label: &&usize| above(label).find(|label| head.contains(label));
            if let Some((&label, ancestor)) = head.iter().find_map(|label| Some((label, within(&label)?))) {
                return Err(format!(
                    "labels {:?} and {:?} exclude each other, but the first lies under the second; take one out of the group",
                    names[label], names[ancestor]
                ));
            }
        }
        let mut order: Vec<usize> = heads.iter().flat_map(|head| head.iter().copied()).collect();
        let mut single: Vec<usize> = (0..names.len()).filter(|label| !order.contains(label)).collect();
        single.sort_by_key(|&label| depth(parents, label));
        order.extend(single);
        let mut place = vec![0; names.len()];
        order.iter().enumerate().for_each(|(new, &old)| place[old] = new);
        let tree = Self {
            parents: order.iter().map(|&old| parents[old].map(|parent| place[parent])).collect(),
            heads: heads.iter().map(|head| head.len()).collect(),
            implied: Vec::new(),
        };
        if let Some(label) = (0..names.len()).find(|&label| !tree.ways_end(label)) {
            return Err(format!("label {:?} lies more than {DEEPEST} levels deep", names[order[label]]));
        }
        if tree.units().is_none() {
            return Err("groups wait for each other: each has a label under one of the other; regroup them".into());
        }
        Ok((tree, order))
    }

    /// Labels with the same parent, as groups; the roots are one, too.
    pub fn siblings(parents: &[Option<usize>]) -> Vec<Vec<usize>> {
        let mut groups: Vec<(Option<usize>, Vec<usize>)> = Vec::new();
        for (label, &parent) in parents.iter().enumerate() {
            match groups.iter_mut().find(|(of, _)| *of == parent) {
                Some((_, group)) => group.push(label),
                None => groups.push((parent, vec![label])),
            }
        }
        groups.into_iter().map(|(_, group)| group).collect()
    }

    /// Whether this is a tree of so many labels: a file may say anything.
    pub fn fits(&self, labels: usize) -> bool {
        let end = self.heads.iter().try_fold(0_usize, |end, &size| if size < 2 { None } else { end.checked_add(size) });
        self.parents.len() == labels
            && end.is_some_and(|end| end <= labels)
            && self.parents.iter().flatten().all(|&parent| parent < labels)
            && self.implied.iter().all(|&label| label < labels)
            && (0..labels).all(|label| self.ways_end(label))
            && self.units().is_some()
    }

    /// Whether the way up from a label ends, within what anyone needs.
    fn ways_end(&self, label: usize) -> bool {
        std::iter::successors(Some(label), |&label| self.parents[label]).take(DEEPEST + 1).count() <= DEEPEST
    }

    /// Number of labels.
    pub fn labels(&self) -> usize {
        self.parents.len()
    }

    /// A label's parent.
    pub fn parent(&self, label: usize) -> Option<usize> {
        self.parents[label]
    }

    /// The first label of each head, and of those by themselves.
    pub fn begins(&self) -> Vec<usize> {
        let mut begins = vec![0];
        begins.extend(self.heads.iter().scan(0, |end, size| {
            *end += size;
            Some(*end)
        }));
        begins
    }

    /// The labels of each head.
    pub fn heads(&self) -> impl Iterator<Item = Unit> {
        let begins = self.begins();
        (0..self.heads.len()).map(move |head| begins[head]..begins[head + 1])
    }

    /// The labels that stand by themselves.
    pub fn single(&self) -> Unit {
        self.heads.iter().sum()..self.parents.len()
    }

    /// How many ancestors a label has.
    pub fn depth(&self, label: usize) -> usize {
        depth(&self.parents, label)
    }

    /// Levels of the tree.
    pub fn levels(&self) -> usize {
        (0..self.labels()).map(|label| self.depth(label) + 1).max().unwrap_or(0)
    }

    /// A label and its ancestors, the root first.
    pub fn path(&self, label: usize) -> Vec<usize> {
        let mut path: Vec<usize> = std::iter::successors(Some(label), |&label| self.parents[label]).collect();
        path.reverse();
        path
    }

    /// A row of an image with these labels and `unknown` ones: 1 for those and their ancestors, -1 for the unknown, 0 for the rest.
    ///
    /// # Errors
    /// Two of them that exclude each other.
    pub fn row(&self, labels: &[usize], unknown: &[usize]) -> Result<Vec<f32>, (usize, usize)> {
        let mut row = vec![0.0; self.labels()];
        unknown.iter().for_each(|&label| row[label] = -1.0);
        labels.iter().flat_map(|&label| self.path(label)).for_each(|label| row[label] = 1.0);
        for head in self.heads() {
            let mut set = head.filter(|&label| row[label] > 0.5);
            if let (Some(first), Some(second)) = (set.next(), set.next()) {
                return Err((first, second));
            }
        }
        Ok(row)
    }

    /// The deepest label of a row, the first of equals; none where it has none.
    pub fn leaf(&self, row: &[f32]) -> Option<usize> {
        let set = (0..row.len()).filter(|&label| row[label] > 0.5);
        set.max_by_key(|&label| (self.depth(label), std::cmp::Reverse(label)))
    }

    /// Learns from training rows which labels always come with their parent.
    pub fn learn_implied<'a>(&mut self, rows: impl Iterator<Item = &'a [f32]>) {
        let mut candidates: Vec<usize> = self.single().filter(|&label| self.parents[label].is_some()).collect();
        for row in rows {
            let parents = &self.parents;
            candidates.retain(|&label| parents[label].is_none_or(|parent| row[parent] < 0.5 || row[label] > 0.5));
        }
        self.implied = candidates;
    }

    /// What an image shows by its logits, ancestors before descendants: from the root on, each head's highest label among those whose parent was
    /// taken, and the labels by themselves that are likelier than not (or implied) where their parent was taken.
    pub fn predict(&self, logits: &[f32]) -> Vec<usize> {
        let mut taken = vec![false; self.labels()];
        for unit in self.units().unwrap_or_default() {
            let is_head = unit.len() > 1;
            let open = |label: &usize| self.parents[*label].is_none_or(|parent| taken[parent]);
            let chosen = if is_head {
                unit.filter(open).reduce(|best, label| if logits[label] > logits[best] { label } else { best })
            } else {
                unit.filter(open).find(|&label| logits[label] > 0.0 || self.implied.contains(&label))
            };
            if let Some(label) = chosen {
                taken[label] = true;
            }
        }
        let mut found = Vec::new();
        self.walk(None, &taken, &mut found);
        found
    }

    /// Whether what each head and label says by itself fits together: no head's highest label lies under one that was not taken where another
    /// of the head's does not, and no label by itself is likelier than not without its parent.
    pub fn agrees(&self, logits: &[f32], predicted: &[usize]) -> bool {
        let taken = |label: Option<usize>| label.is_none_or(|label| predicted.contains(&label));
        let mut heads = self.heads();
        heads.all(|head| {
            let open = head.clone().any(|label| taken(self.parents[label]));
            let highest = head.reduce(|best, label| if logits[label] > logits[best] { label } else { best });
            !open || highest.is_none_or(|label| taken(self.parents[label]))
        }) && self.single().all(|label| logits[label] <= 0.0 || taken(self.parents[label]))
    }

    /// All labels, each before those under it.
    pub fn walk_all(&self) -> Vec<usize> {
        let mut found = Vec::new();
        self.walk(None, &vec![true; self.labels()], &mut found);
        found
    }

    /// The children of `parent` that are taken, each before its own.
    fn walk(&self, parent: Option<usize>, taken: &[bool], found: &mut Vec<usize>) {
        for label in (0..self.labels()).filter(|&label| taken[label] && self.parents[label] == parent) {
            found.push(label);
            self.walk(Some(label), taken, found);
        }
    }

    /// Heads and labels by themselves, each behind those that hold the parents of its labels; none where they wait for each other.
    fn units(&self) -> Option<Vec<Unit>> {
        let mut waiting: Vec<Unit> = self.heads().chain(self.single().map(|label| label..label + 1)).collect();
        let mut decided = vec![false; self.labels()];
        let mut units = Vec::new();
        while !waiting.is_empty() {
            let before = units.len();
            waiting.retain(|unit| {
                let ready = unit.clone().all(|label| self.parents[label].is_none_or(|parent| decided[parent]));
                if ready {
                    unit.clone().for_each(|label| decided[label] = true);
                    units.push(unit.clone());
                }
                !ready
            });
            if units.len() == before {
                return None;
            }
        }
        Some(units)
    }
}

fn depth(parents: &[Option<usize>], label: usize) -> usize {
    std::iter::successors(parents[label], |&label| parents[label]).count()
}

/// A label that is its own ancestor is named with the way around.
fn check_circles(names: &[String], parents: &[Option<usize>]) -> Result<(), String> {
    for label in 0..parents.len() {
        let mut at = label;
        let mut way = vec![label];
        while let Some(parent) = parents[at] {
            if parent == label {
                let names: Vec<_> = way.iter().chain([&label]).map(|&label| format!("{:?}", names[label])).collect();
                return Err(format!(
                    "the labels are a circle: each of {} lies under the next; cut it",
                    names.join(", ")
                ));
            }
            if way.len() > DEEPEST {
                // Too deep, or it leads into a circle, which its own labels will name.
                break;
            }
            way.push(parent);
            at = parent;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(names: &[&str]) -> Vec<String> {
        names.iter().map(|&name| name.to_owned()).collect()
    }

    /// animal {dog, cat}, vehicle {car, bus}, the lone poodle under dog, and outdoor by itself.
    fn tree() -> (Tree, Vec<String>) {
        let all = names(&["outdoor", "animal", "dog", "poodle", "cat", "vehicle", "car", "bus"]);
        let parents = [None, None, Some(1), Some(2), Some(1), None, Some(5), Some(5)];
        let groups = [vec![2, 4], vec![1, 5], vec![6, 7]];
        let (tree, order) = Tree::new(&all, &parents, &groups).unwrap();
        let sorted = order.iter().map(|&old| all[old].clone()).collect();
        (tree, sorted)
    }

    #[test]
    fn heads_come_first_and_parents_before_children() {
        let (tree, sorted) = tree();
        assert_eq!(sorted, names(&["animal", "vehicle", "dog", "cat", "car", "bus", "outdoor", "poodle"]));
        assert_eq!((tree.begins(), tree.single(), tree.levels()), (vec![0, 2, 4, 6], 6..8, 3));
        assert_eq!(tree.path(7), [0, 2, 7]);
        assert!(tree.fits(8) && !tree.fits(7));
    }

    #[test]
    fn a_row_has_the_ancestors() {
        let (tree, _) = tree();
        assert_eq!(tree.row(&[7], &[6]).unwrap(), [1.0, 0.0, 1.0, 0.0, 0.0, 0.0, -1.0, 1.0]);
        assert_eq!(tree.row(&[2, 5], &[]).unwrap_err(), (0, 1));
        assert_eq!(tree.leaf(&tree.row(&[6, 3], &[]).unwrap()), Some(3));
        assert_eq!(tree.leaf(&[0.0; 8]), None);
    }

    #[test]
    fn a_prediction_is_a_path() {
        let (mut tree, _) = tree();
        // vehicle before animal; among its children bus; the dog that is likelier than all has no say.
        let logits = [0.1, 0.2, 9.0, 0.0, -3.0, -2.0, -1.0, 4.0];
        assert_eq!(tree.predict(&logits), [1, 5]);
        assert!(!tree.agrees(&logits, &[1, 5]), "a poodle that is no dog");
        let logits = [0.3, 0.2, 9.0, 0.0, -3.0, -2.0, 1.0, -4.0];
        assert_eq!(tree.predict(&logits), [0, 2, 6]);
        assert!(tree.agrees(&logits, &[0, 2, 6]));
        let rows = [tree.row(&[7], &[]).unwrap(), tree.row(&[3], &[]).unwrap()];
        tree.learn_implied(rows.iter().map(Vec::as_slice));
        assert_eq!(tree.predict(&logits), [0, 2, 7, 6]);
        let rows = [tree.row(&[7], &[]).unwrap(), tree.row(&[2], &[]).unwrap()];
        tree.learn_implied(rows.iter().map(Vec::as_slice));
        assert_eq!(tree.predict(&logits), [0, 2, 6]);
    }

    #[test]
    fn a_head_over_a_whole_level_takes_only_children_of_what_was_taken() {
        let all = names(&["a", "b", "a1", "a2", "b1"]);
        let parents = [None, None, Some(0), Some(0), Some(1)];
        let (tree, order) = Tree::new(&all, &parents, &[vec![2, 3, 4], vec![0, 1]]).unwrap();
        assert_eq!(order, [0, 1, 2, 3, 4]);
        let logits = [2.0, 1.0, 0.5, 0.7, 3.0];
        assert_eq!(tree.predict(&logits), [0, 3]);
        assert!(!tree.agrees(&logits, &[0, 3]));
        assert!(tree.agrees(&[2.0, 1.0, 0.5, 0.7, 0.6], &[0, 3]));
    }

    #[test]
    fn what_is_no_tree_is_refused() {
        let all = names(&["a", "b", "c"]);
        let error = |parents: [Option<usize>; 3], groups: &[Vec<usize>]| Tree::new(&all, &parents, groups).unwrap_err();
        let circle = error([Some(1), Some(2), Some(0)], &[]);
        assert!(circle.contains(r#""a", "b", "c", "a""#), "{circle}");
        assert!(error([Some(1), Some(1), None], &[]).contains("circle"));
        assert!(error([None; 3], &[vec![0, 1], vec![1, 2]]).contains("\"b\" is in two groups"));
        assert!(error([None, Some(0), None], &[vec![0, 1]]).contains("exclude each other"));
        let all = names(&["a", "b", "under a", "under b"]);
        let crossed = Tree::new(&all, &[None, None, Some(0), Some(1)], &[vec![0, 3], vec![1, 2]]);
        assert!(crossed.unwrap_err().contains("wait for each other"));
        assert_eq!(Tree::siblings(&[None, Some(0), None, Some(0)]), [vec![0, 2], vec![1, 3]]);
    }
}
