//! The definition as a tree: YAML or JSON with a line and a column at every node.
//!
//! It knows YAML, and nothing of workflows. It never resolves a file and never recurses over what
//! it has not measured: size, nesting and the number of nodes (aliases are copies) are bounded.
//!
//! Invariants: keys of a map are strings, appear once, and stand in the order of their bytes, so
//! that nothing can come to depend on the order in which a person wrote them.

use std::collections::HashMap;
use std::sync::Arc;

use foldback_core::limits;
use serde_json::{Map, Value};
use serde_saphyr::granit_parser::{self as granit, Event, Marker, Parser, ScalarStyle, Span};

use crate::problem::Problem;
use crate::scalar;

/// Nodes of a definition, aliases counted as copies. A definition of the greatest size has fewer.
const NODES_MAX: usize = 250_000;

/// One value of a definition, and where it stands.
#[derive(Clone, Debug)]
pub(crate) struct Node {
    pub line: u32,
    pub column: u32,
    pub pointer: Arc<str>,
    /// Whether the text of a scalar stands in the source as it is, from `column` on, so that a
    /// place inside it can be named.
    pub is_verbatim: bool,
    pub data: Data,
}

/// What a node holds.
#[derive(Clone, Debug)]
pub(crate) enum Data {
    Scalar(Value),
    List(Vec<Node>),
    Map(Vec<Member>),
}

/// One member of a map.
#[derive(Clone, Debug)]
pub(crate) struct Member {
    pub name: String,
    /// The place of the name.
    pub key: Place,
    pub value: Node,
}

/// A place in the source, from 1.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place {
    pub line: u32,
    pub column: u32,
}

impl Node {
    /// The node's place without what it holds.
    pub fn hollow(&self) -> Node {
        Node {
            line: self.line,
            column: self.column,
            pointer: self.pointer.clone(),
            is_verbatim: false,
            data: Data::Scalar(Value::Null),
        }
    }

    /// The same node named at another place: a member's key instead of its value.
    pub fn at(&self, place: Place) -> Node {
        Node { line: place.line, column: place.column, ..self.hollow() }
    }

    pub fn as_map(&self) -> Option<&[Member]> {
        match &self.data {
            Data::Map(members) => Some(members),
            Data::Scalar(_) | Data::List(_) => None,
        }
    }

    pub fn as_list(&self) -> Option<&[Node]> {
        match &self.data {
            Data::List(items) => Some(items),
            Data::Scalar(_) | Data::Map(_) => None,
        }
    }

    pub fn as_scalar(&self) -> Option<&Value> {
        match &self.data {
            Data::Scalar(value) => Some(value),
            Data::List(_) | Data::Map(_) => None,
        }
    }

    pub fn as_str(&self) -> Option<&str> {
        self.as_scalar().and_then(Value::as_str)
    }

    /// The member of this name.
    pub fn get(&self, name: &str) -> Option<&Node> {
        self.member(name).map(|member| &member.value)
    }

    /// The member of this name, with the place of its name.
    pub fn member(&self, name: &str) -> Option<&Member> {
        let members = self.as_map()?;
        members.binary_search_by(|m| m.name.as_str().cmp(name)).ok().map(|at| &members[at])
    }

    /// The node at a JSON pointer below this one.
    pub fn find(&self, pointer: &str) -> Option<&Node> {
        let mut at = self;
        for part in pointer.split('/').skip(1) {
            let name = part.replace("~1", "/").replace("~0", "~");
            at = match &at.data {
                Data::Map(_) => at.get(&name)?,
                Data::List(items) => items.get(name.parse::<usize>().ok()?)?,
                Data::Scalar(_) => return None,
            };
        }
        Some(at)
    }

    /// What kind of value it is, for messages.
    pub fn kind(&self) -> &'static str {
        match &self.data {
            Data::Map(_) => "an object",
            Data::List(_) => "a list",
            Data::Scalar(Value::Null) => "nothing",
            Data::Scalar(Value::Bool(_)) => "a boolean",
            Data::Scalar(Value::Number(_)) => "a number",
            Data::Scalar(_) => "a text",
        }
    }

    /// The plain value.
    pub fn to_value(&self) -> Value {
        match &self.data {
            Data::Scalar(value) => value.clone(),
            Data::List(items) => Value::Array(items.iter().map(Node::to_value).collect()),
            Data::Map(members) => Value::Object(
                members.iter().map(|m| (m.name.clone(), m.value.to_value())).collect::<Map<_, _>>(),
            ),
        }
    }

    /// Gives every node below this one its JSON pointer.
    pub fn name_pointers(&mut self, pointer: Arc<str>) {
        match &mut self.data {
            Data::Scalar(_) => {}
            Data::List(items) => {
                for (i, item) in items.iter_mut().enumerate() {
                    item.name_pointers(Arc::from(format!("{pointer}/{i}")));
                }
            }
            Data::Map(members) => {
                for member in members.iter_mut() {
                    let name = member.name.replace('~', "~0").replace('/', "~1");
                    member.value.name_pointers(Arc::from(format!("{pointer}/{name}")));
                }
            }
        }
        self.pointer = pointer;
    }
}

/// A list or a map that is being read.
enum Open {
    List { place: Place, anchor: usize, items: Vec<Node> },
    Map { place: Place, anchor: usize, members: Vec<Member>, key: Option<(String, Place)> },
}

struct Builder<'s> {
    source: &'s str,
    open: Vec<Open>,
    root: Option<Node>,
    anchors: HashMap<usize, Node>,
    nodes: usize,
}

/// Reads YAML, of which JSON is a part.
pub(crate) fn parse(source: &str) -> Result<Node, Problem> {
    if source.len() > limits::DEFINITION_MAX_BYTES {
        let message = format!(
            "a definition has at most {} bytes, this one has {}",
            limits::DEFINITION_MAX_BYTES,
            source.len()
        );
        return Err(fault(
            Place { line: 1, column: 1 },
            message,
            "put long prompts and scripts into files of their own",
        ));
    }
    let source = source.strip_prefix('\u{feff}').unwrap_or(source);
    let mut options = granit::Options::default();
    options.emit_comments = false;
    options.flow_nesting_limit = limits::DEPTH_MAX;
    options.block_nesting_limit = limits::DEPTH_MAX;
    let mut builder = Builder { source, open: Vec::new(), root: None, anchors: HashMap::new(), nodes: 0 };
    for event in Parser::new_from_str_with_options(source, options) {
        let (event, span) = event.map_err(|error| broken(source, &error))?;
        builder.event(event, &span)?;
    }
    let mut root = builder.root.ok_or_else(|| {
        fault(
            Place { line: 1, column: 1 },
            "the definition is empty".into(),
            "begin with `document:` and `do:`; see `foldback init`",
        )
    })?;
    root.name_pointers(Arc::from(""));
    Ok(root)
}

fn broken(source: &str, error: &granit::ScanError) -> Problem {
    let place = place(error.marker());
    let line = source.lines().nth(place.line as usize - 1).unwrap_or("");
    let before = source.lines().nth((place.line as usize).wrapping_sub(2)).unwrap_or("");
    let indent: String = line.chars().take_while(|c| c.is_whitespace()).collect();
    let hint = if indent.contains('\t') {
        "indent with spaces: YAML allows no tabs there"
    } else if has_bare_expression(line) || has_bare_expression(before) {
        "put the expression into single quotes, as in set: '${ . + {a: 1} }' (a quote inside is written twice: '')"
    } else {
        "check the indentation, the quotes and the colons here and on the line before"
    };
    fault(place, format!("this is not YAML: {}", error.info()), hint)
}

/// Whether an expression stands in a line without quotes around it: in one, YAML takes `{`, `: ` and ` #` for
/// its own.
fn has_bare_expression(line: &str) -> bool {
    let mut quote = None;
    let mut before = ' ';
    for (at, c) in line.char_indices() {
        match quote {
            Some(open) if c == open => quote = None,
            Some(_) => {}
            // A quote opens where a value begins; inside a plain text it is a character.
            None if matches!(c, '\'' | '"') && matches!(before, ' ' | '{' | '[' | ',' | ':') => {
                quote = Some(c)
            }
            None if line[at..].starts_with("${") => return true,
            None => {}
        }
        before = c;
    }
    false
}

fn fault(place: Place, message: String, hint: &str) -> Problem {
    Problem {
        line: place.line,
        column: place.column,
        pointer: String::new(),
        message,
        hint: Some(hint.to_owned()),
    }
}

fn place(marker: &Marker) -> Place {
    let number = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
    Place { line: number(marker.line().max(1)), column: number(marker.col() + 1) }
}

impl Builder<'_> {
    fn event(&mut self, event: Event<'_>, span: &Span) -> Result<(), Problem> {
        let place = place(&span.start);
        match event {
            Event::Scalar(text, style, anchor, tag) => {
                let node = self.scalar(&text, style, tag.as_deref(), place, span)?;
                self.add(node, anchor)
            }
            Event::SequenceStart(_, anchor, tag) => {
                self.collection_tag(tag.as_deref(), "seq", place)?;
                self.enter(Open::List { place, anchor, items: Vec::new() }, place)
            }
            Event::MappingStart(_, anchor, tag) => {
                self.collection_tag(tag.as_deref(), "map", place)?;
                self.enter(Open::Map { place, anchor, members: Vec::new(), key: None }, place)
            }
            Event::SequenceEnd | Event::MappingEnd => self.leave(),
            Event::Alias(anchor) => {
                let Some(target) = self.anchors.get(&anchor) else {
                    return Err(fault(
                        place,
                        "an alias may not stand inside what it names".into(),
                        "write the value out",
                    ));
                };
                let copy = Node { line: place.line, column: place.column, ..target.clone() };
                self.nodes += count(&copy);
                self.add(copy, 0)
            }
            Event::DocumentStart(..) if self.root.is_some() => Err(fault(
                place,
                "a file holds one definition".into(),
                "put the second document into a file of its own",
            )),
            Event::StreamStart | Event::StreamEnd | Event::DocumentStart(..) | Event::DocumentEnd => Ok(()),
            // Comments and anchor names are not asked for; the enum is open.
            _ => Ok(()),
        }
    }

    fn enter(&mut self, open: Open, place: Place) -> Result<(), Problem> {
        if self.open.len() >= limits::DEPTH_MAX {
            return Err(fault(
                place,
                format!("a definition nests at most {} deep", limits::DEPTH_MAX),
                "flatten it",
            ));
        }
        self.open.push(open);
        Ok(())
    }

    fn leave(&mut self) -> Result<(), Problem> {
        match self.open.pop() {
            None => Ok(()),
            Some(Open::List { place, anchor, items }) => self.add(bare(place, Data::List(items)), anchor),
            Some(Open::Map { place, anchor, mut members, .. }) => {
                members.sort_by(|a, b| a.name.cmp(&b.name));
                if let Some(pair) = members.windows(2).find(|pair| pair[0].name == pair[1].name) {
                    let (first, second) = (pair[0].key, pair[1].key);
                    let message = format!("`{}` is given twice, first on line {}", pair[1].name, first.line);
                    return Err(fault(second, message, "keep one of the two"));
                }
                // YAML 1.1 merged here; taken for a name, it would go unnoticed in the middle of data.
                if let Some(merge) = members.iter().find(|m| m.name == "<<" && m.value.as_scalar().is_none())
                {
                    let hint = "write the members out, or give the whole value an anchor";
                    return Err(fault(merge.key, "`<<` merges nothing in YAML 1.2".to_owned(), hint));
                }
                self.add(bare(place, Data::Map(members)), anchor)
            }
        }
    }

    fn add(&mut self, node: Node, anchor: usize) -> Result<(), Problem> {
        let at = Place { line: node.line, column: node.column };
        self.nodes += 1;
        if self.nodes > NODES_MAX || self.open.len() + height(&node) > limits::DEPTH_MAX + 1 {
            let message = format!(
                "a definition has at most {NODES_MAX} values, {} deep (aliases count as copies)",
                limits::DEPTH_MAX
            );
            return Err(fault(at, message, "write out less, or use fewer aliases"));
        }
        if anchor > 0 {
            self.nodes += count(&node);
            self.anchors.insert(anchor, node.clone());
        }
        match self.open.last_mut() {
            None => self.root = Some(node),
            Some(Open::List { items, .. }) => items.push(node),
            Some(Open::Map { members, key, .. }) => match key.take() {
                Some((name, place)) => members.push(Member { name, key: place, value: node }),
                None => *key = Some((key_name(&node)?, at)),
            },
        }
        Ok(())
    }

    fn collection_tag(&self, tag: Option<&granit::Tag>, core: &str, place: Place) -> Result<(), Problem> {
        match tag {
            Some(tag) if !tag.is_yaml_core_schema_tag(core) => Err(unknown_tag(tag, place)),
            _ => Ok(()),
        }
    }

    fn scalar(
        &self,
        text: &str,
        style: ScalarStyle,
        tag: Option<&granit::Tag>,
        place: Place,
        span: &Span,
    ) -> Result<Node, Problem> {
        let tag_place = span.tag_start().map_or(place, |marker| self::place(&marker));
        let value = match tag {
            Some(tag) if tag.is_yaml_core_schema_tag("str") => Value::String(text.to_owned()),
            Some(tag) => return Err(unknown_tag(tag, tag_place)),
            None if style == ScalarStyle::Plain => scalar::plain(text)
                .map_err(|message| fault(place, message, "put it into quotes to make it a text"))?,
            None => Value::String(text.to_owned()),
        };
        let mut node = bare(place, Data::Scalar(value));
        if let Some(written) = span.slice(self.source) {
            if written == text {
                node.is_verbatim = true;
            } else if written.len() == text.len() + 2 && written.get(1..written.len() - 1) == Some(text) {
                // Quoted without escapes: the text begins behind the quote.
                node.is_verbatim = true;
                node.column += 1;
            }
        }
        Ok(node)
    }
}

fn bare(place: Place, data: Data) -> Node {
    Node { line: place.line, column: place.column, pointer: Arc::from(""), is_verbatim: false, data }
}

fn unknown_tag(tag: &granit::Tag, place: Place) -> Problem {
    fault(place, format!("the tag `{tag}` means nothing here"), "leave the tag out")
}

fn key_name(node: &Node) -> Result<String, Problem> {
    match &node.data {
        Data::Scalar(Value::String(text)) => Ok(text.clone()),
        // As in JSON, a key is a text: `404:` is "404".
        Data::Scalar(value) => Ok(value.to_string()),
        Data::List(_) | Data::Map(_) => Err(fault(
            Place { line: node.line, column: node.column },
            "a key is a text".into(),
            "if you meant `${ … }` or `{ … }` as a value, put it into quotes",
        )),
    }
}

fn count(node: &Node) -> usize {
    match &node.data {
        Data::Scalar(_) => 1,
        Data::List(items) => 1 + items.iter().map(count).sum::<usize>(),
        Data::Map(members) => 1 + members.iter().map(|m| count(&m.value)).sum::<usize>(),
    }
}

fn height(node: &Node) -> usize {
    match &node.data {
        Data::Scalar(_) => 1,
        Data::List(items) => 1 + items.iter().map(height).max().unwrap_or(0),
        Data::Map(members) => 1 + members.iter().map(|m| height(&m.value)).max().unwrap_or(0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn yaml_reads_by_the_core_schema() {
        let source =
            "a: yes\nb: true\nc: 1.0.0\nd: 1.5\ne: '1'\nf: ~\ng: [1, -2, 0x10]\nh: |\n  x\n  y\n404: n\n";
        let value = parse(source).unwrap().to_value();
        assert_eq!(
            value,
            json!({"404": "n", "a": "yes", "b": true, "c": "1.0.0", "d": 1.5, "e": "1", "f": null, "g": [1, -2, 16], "h": "x\ny\n"})
        );
        assert_eq!(parse(r#"{"a": [1, {"b": null}]}"#).unwrap().to_value(), json!({"a": [1, {"b": null}]}));
    }

    #[test]
    fn every_node_knows_its_place() {
        let tree = parse("a:\n  - b: 'x'\n    c: [1, two]\n").unwrap();
        let c = tree.get("a").and_then(Node::as_list).and_then(|l| l[0].get("c")).unwrap();
        let two = &c.as_list().unwrap()[1];
        assert_eq!((two.line, two.column, &*two.pointer), (3, 12, "/a/0/c/1"));
    }

    #[test]
    fn an_alias_bomb_does_not_go_off() {
        let mut source = String::from("a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n");
        for i in 1..20 {
            let before = format!("*a{}, ", i - 1).repeat(10);
            source.push_str(&format!("a{i}: &a{i} [{before}]\n"));
        }
        let problem = parse(&source).unwrap_err();
        assert!(problem.message.contains("aliases"), "{problem}");
    }
}
