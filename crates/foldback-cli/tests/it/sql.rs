//! Every query of `docs/sql.md`, run on a store of real workflows. None may be empty: a query that
//! finds nothing where there is something to find is wrong, however well it parses.

use std::path::Path;

use crate::servers::{Answers, Server};
use crate::world::{World, article, unknown, write};
use foldback::core::event::ENGINE_TYPES;
use rusqlite::Connection;

const PAGE: &str = include_str!("../../../../docs/sql.md");

const ANSWER: &str = "data: {\"model\":\"gpt-4o-mini-2024-07-18\",\"choices\":[{\"index\":0,\"delta\":{\"content\":\"Lamps.\"},\"finish_reason\":\"stop\"}]}\n\ndata: {\"model\":\"gpt-4o-mini-2024-07-18\",\"choices\":[],\"usage\":{\"prompt_tokens\":1000,\"completion_tokens\":2000}}\n\ndata: [DONE]\n\n";

/// A pipeline that asks a model, decides, records and publishes; publishing `bad` fails, the second
/// attempt of `again` succeeds.
const PIPELINE: &str = r#"
document: { dsl: '1.0.3', namespace: shop, name: article, version: 'VERSION' }
do:
  - draft: { call: llm, with: { model: local/small, template: 'Write about {topic}', vars: { topic: '${ .topic }' } } }
  - words:
      run: { shell: { command: 'sleep 0.02; echo 3' } }
      metadata: { foldback: { effect: read } }
  - route:
      switch:
        - long: { when: '(. | tonumber) > BAR', then: publish }
        - short: { then: publish }
  - publish:
      try:
        - send:
            run: { shell: { command: 'if [ "$TOPIC" = bad ]; then exit 3; fi; if [ "$TOPIC" = again ] && [ ! -e tried ]; then touch tried; exit 1; fi', environment: { TOPIC: '${ $workflow.input.topic }' } } }
            metadata: { foldback: { effect: read } }
      catch:
        retry: { delay: { milliseconds: 1 }, limit: { attempt: { count: 2 } } }
  - record:
      emit: { event: { with: { source: 'https://shop.example', type: PAGE_PUBLISHED, data: { author: '${ $workflow.input.author }', text: 'TEXT' } } } }
"#;

/// Blocks of the page in a language; the text behind it, where there is some.
fn blocks(language: &str) -> Vec<(String, String)> {
    let mut found = Vec::new();
    let mut rest = PAGE;
    while let Some(at) = rest.find("\n```") {
        let (head, body) = rest[at + 4..].split_once('\n').unwrap();
        let end = body.find("\n```").unwrap();
        if let Some(name) = head.strip_prefix(language) {
            found.push((name.trim().to_owned(), body[..end].to_owned()));
        }
        rest = &body[end + 4..];
    }
    found
}

fn put(folder: &Path, name: &str, text: &str) {
    std::fs::write(folder.join(name), text).unwrap();
}

/// Real workflows: two versions of a pipeline on the same inputs, one that fails, one whose model is down, one that waits, one whose
/// outcome nobody knows.
fn filled() -> World {
    let world = World::empty();
    let folder = world.dir.path();
    let server = Server::that(Answers::Streams(ANSWER));
    let provider = format!(
        "[providers.local]\nkind = \"openai\"\nbase_url = \"{}/v1\"\nprices = \"openai\"\n[providers.down]\nkind = \"openai\"\nbase_url = \"{}/v1\"\n",
        server.url,
        Server::refusing()
    );
    put(folder, "foldback.toml", &provider);
    let pipeline = |version: &str, bar: &str| {
        PIPELINE.replace("VERSION", version).replace("BAR", bar).replace("TEXT", &"long ".repeat(400))
    };
    put(folder, "one.yaml", &pipeline("1.0.0", "4"));
    put(folder, "down.yaml", &pipeline("1.0.1", "4").replace("local/small", "down/small"));
    put(folder, "two.yaml", &pipeline("1.1.0", "2"));
    put(
        folder,
        "wait.yaml",
        "document: { dsl: '1.0.3', namespace: shop, name: nap, version: '1.0.0' }\ndo:\n  - sleep: { wait: { hours: 9 } }\n",
    );
    put(
        folder,
        "undo.yaml",
        "document: { dsl: '1.0.3', namespace: shop, name: undo, version: '1.0.0' }\ndo:\n  - book:\n      run: { shell: { command: 'true' } }\n      metadata: { foldback: { undo: [ { unbook: { run: { shell: { command: 'true' } } } } ] } }\n  - go: { listen: { to: { one: { with: { type: go } } } } }\n  - fail: { run: { shell: { command: 'exit 1' } } }\n",
    );
    for (id, file, topic, code) in [
        ("undone", "undo.yaml", "lamps", 0),
        ("lamps-1", "one.yaml", "lamps", 0),
        ("lamps-2", "two.yaml", "lamps", 0),
        ("again-1", "one.yaml", "again", 0),
        ("bad-1", "one.yaml", "bad", 1),
        ("down-1", "down.yaml", "lamps", 1),
    ] {
        let input = format!(r#"{{"topic": "{topic}", "author": "ann"}}"#);
        let ran = world.run(&["run", file, "--id", id, "--input", &input]);
        assert_eq!(ran.code, code, "{ran:?}");
    }
    assert_eq!(world.run(&["signal", "undone", "go"]).code, 1, "it fails, and is compensated");
    let mut sleeper = world.command(&["run", "wait.yaml", "--id", "sleeper"]);
    let mut sleeper = sleeper.stderr(std::process::Stdio::null()).spawn().unwrap();
    let begun = std::time::Instant::now();
    while !world.run(&["list", "--status", "waiting"]).out.contains("sleeper") {
        assert!(begun.elapsed().as_secs() < 20, "it sleeps");
    }
    sleeper.kill().unwrap();
    sleeper.wait().unwrap();
    write(&*world.store(), "unknown", &article("unknown", &unknown()), Some("unknown"));
    world
}

#[test]
fn every_query_of_the_page_finds_what_there_is() {
    let world = filled();
    let files = blocks("yaml ");
    for (name, text) in &files {
        put(world.dir.path(), name, text);
        let added = world.run(&["projection", "add", name]);
        assert_eq!(added.code, 0, "{added:?}");
    }
    assert_eq!(world.run(&["list"]).code, 0, "the projections are up to date");
    let conn = Connection::open(world.path()).unwrap();
    let queries = blocks("sql");
    assert!(queries.len() >= 15 && files.len() == 1, "{} queries", queries.len());
    for (_, query) in &queries {
        let mut ask = conn.prepare(query).unwrap_or_else(|e| panic!("{e}\n{query}"));
        let names: Vec<String> = ask.column_names().into_iter().map(str::to_owned).collect();
        let mut rows = ask.query([]).unwrap();
        let (mut count, mut filled) = (0, vec![false; names.len()]);
        while let Some(row) = rows.next().unwrap_or_else(|e| panic!("{e}\n{query}")) {
            count += 1;
            for (i, is_filled) in filled.iter_mut().enumerate() {
                *is_filled |= row.get_ref(i).unwrap() != rusqlite::types::ValueRef::Null;
            }
        }
        assert!(count > 0, "no rows\n{query}");
        for (name, is_filled) in names.iter().zip(filled) {
            // Nothing stands still here.
            assert!(is_filled || name.starts_with("fail"), "{name} is null in each row\n{query}");
        }
    }
    let one = |query: &str| conn.query_row(query, [], |row| row.get::<_, String>(0)).unwrap();
    let find =
        |words: &str| queries.iter().map(|(_, query)| query).find(|query| query.contains(words)).unwrap();
    let flipped = find("but\nFROM decisions");
    assert_eq!(
        one(&format!("SELECT one || ' ' || chosen || ', ' || other || ' ' || but FROM ({flipped})")),
        "lamps-1 short, lamps-2 long"
    );
    let spent = find("AS usd\nFROM workflow_summaries\nWHERE ended IN");
    assert_eq!(
        one(&format!(
            "SELECT group_concat(definition || ' ' || workflows, '; ') FROM (SELECT * FROM ({spent}) ORDER BY definition)"
        )),
        "article 1.0.0 1; article 1.0.1 1; undo 1.0.0 1"
    );
    let own = find("AS newest");
    assert_eq!(one(&format!("SELECT group_concat(type) FROM ({own})")), "PAGE_PUBLISHED");
    for kind in ENGINE_TYPES {
        assert!(own.contains(&format!("'{kind}'")), "{kind} is no event of your own domain");
    }
    let failures = find("percent");
    assert_eq!(
        one(&format!(
            "SELECT group_concat(key || ' ' || failed, '; ') FROM ({failures}) WHERE key = 'publish/send'"
        )),
        "publish/send 2"
    );
}

#[test]
fn every_table_and_column_that_the_page_names_is_there() {
    let world = World::filled();
    let conn = Connection::open(world.path()).unwrap();
    let rows = PAGE.lines().filter(|line| line.starts_with("| `"));
    let mut tables = 0;
    for row in rows {
        let cells: Vec<&str> = row.split('|').map(str::trim).collect();
        let table = cells[1].trim_matches('`');
        let ask = conn.prepare(&format!("SELECT * FROM {table}")).unwrap_or_else(|e| panic!("{table}: {e}"));
        let there: Vec<String> = ask.column_names().into_iter().map(str::to_owned).collect();
        // What stands in brackets explains a column.
        let mut named = String::new();
        let mut depth = 0;
        for c in cells[3].chars() {
            depth += i32::from(c == '(') - i32::from(c == ')');
            named.extend(Some(c).filter(|_| depth == 0));
        }
        for column in named.split('`').skip(1).step_by(2) {
            assert!(there.iter().any(|name| name == column), "{table} has no {column}: {there:?}");
        }
        tables += 1;
    }
    assert_eq!(tables, 11);
}
