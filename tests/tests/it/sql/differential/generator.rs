//! A world of a few tables, and statements about it.

use fastrand::Rng;

use super::expression::{Class, Column, condition, expression, one, value};

/// What is asked of both.
pub(super) struct Statement {
    pub(super) sql: String,
    /// Whether it gives all its rows an order.
    pub(super) ordered: bool,
    /// Whether it changes nothing.
    pub(super) reads: bool,
}

impl Statement {
    fn write(sql: String) -> Self {
        Self {
            sql,
            ordered: false,
            reads: false,
        }
    }

    fn read(sql: String) -> Self {
        Self {
            sql,
            ordered: false,
            reads: true,
        }
    }
}

/// A table that was made, as far as statements need to know.
#[derive(Clone)]
struct Table {
    name: String,
    /// Its key and what else it has. The key comes first.
    columns: Vec<Column>,
    /// How the key's values look.
    key: Class,
    /// Columns that nobody may write.
    generated: usize,
}

/// Makes statements up.
pub(super) struct Generator {
    rng: Rng,
    tables: Vec<Table>,
    /// What is made before anything else.
    pending: Vec<String>,
    /// For names that are used once.
    number: usize,
}

/// Tables of a world.
const TABLES: usize = 3;
/// The table that triggers count in.
const COUNTER: &str = "counted";

impl Generator {
    pub(super) fn new(rng: Rng) -> Self {
        let mut generator = Self {
            rng,
            tables: Vec::new(),
            pending: Vec::new(),
            number: 0,
        };
        let counter = format!("CREATE TABLE {COUNTER} (k TEXT PRIMARY KEY, n INT) WITHOUT ROWID");
        generator.pending.push(counter);
        for _ in 0..TABLES {
            generator.table();
        }
        for number in 0..TABLES {
            generator.index(number);
            generator.trigger(number);
            generator.fill(number);
        }
        generator.pending.reverse();
        generator
    }

    /// The next one.
    pub(super) fn statement(&mut self) -> Statement {
        if let Some(sql) = self.pending.pop() {
            return Statement::write(sql);
        }
        match self.rng.u8(..20) {
            0..4 => self.insert(),
            4..6 => self.update(),
            6 => self.delete(),
            7 => self.alter(),
            8 => self.transaction(),
            9..12 => self.aggregate(),
            12 => self.window(),
            13 => self.compound(),
            14 => self.common(),
            _ => self.query(),
        }
    }

    /// Everything there is in the end.
    pub(super) fn contents(&self) -> Vec<Statement> {
        let names = self.tables.iter().map(|table| table.name.as_str());
        let tables = names.chain([COUNTER]);
        let mut all: Vec<_> = tables
            .map(|name| Statement::read(format!("SELECT * FROM {name}")))
            .collect();
        let schema = "SELECT type, name, tbl_name, sql FROM sqlite_schema";
        all.push(Statement::read(schema.to_owned()));
        all
    }

    fn name(&mut self, prefix: &str) -> String {
        self.number += 1;
        format!("{prefix}{}", self.number)
    }

    fn table(&mut self) {
        let name = self.name("t");
        let rng = &mut self.rng;
        let (key, declared, without) = match rng.u8(..4) {
            0 => (Class::Text, "TEXT PRIMARY KEY", " WITHOUT ROWID"),
            1 => (Class::Integer, "INTEGER PRIMARY KEY AUTOINCREMENT", ""),
            _ => (Class::Integer, "INTEGER PRIMARY KEY", ""),
        };
        let mut columns = vec![Column {
            name: "k".to_owned(),
            class: key,
            plain: true,
        }];
        let mut parts = vec![format!("k {declared}")];
        for number in 0..rng.usize(2..5) {
            let name = format!("c{number}");
            let (kind, class, plain) = match rng.u8(..7) {
                0 | 1 => ("INT", Class::Integer, true),
                2 => ("REAL", Class::Real, true),
                3 | 4 => ("TEXT", Class::Text, true),
                5 => ("TEXT COLLATE NOCASE", Class::Text, false),
                _ => ("", Class::Any, false),
            };
            let constraint = match rng.u8(..10) {
                0 => " UNIQUE".to_owned(),
                1 => format!(" NOT NULL DEFAULT {}", present(rng, class)),
                2 => format!(" DEFAULT {}", value(rng, class)),
                3 => format!(" CHECK ({name} IS NULL OR length({name}) < 40)"),
                _ => String::new(),
            };
            parts.push(format!("{name} {kind}{constraint}"));
            columns.push(Column { name, class, plain });
        }
        let mut generated = 0;
        if rng.bool() {
            let stored = one(rng, &["VIRTUAL", "STORED"]);
            let inside = expression(rng, &columns, Class::Integer, 1);
            parts.push(format!("g INT AS ({inside}) {stored}"));
            columns.push(Column {
                name: "g".to_owned(),
                class: Class::Integer,
                plain: true,
            });
            generated = 1;
        }
        if let Some(parent) = self.tables.last()
            && parent.key == Class::Integer
            && self.rng.u8(..3) == 0
        {
            let parent = &parent.name;
            parts.push(format!("p INT REFERENCES {parent} ON DELETE CASCADE"));
            // Before the generated one in name only: columns are named wherever they are written.
            let at = columns.len() - generated;
            columns.insert(
                at,
                Column {
                    name: "p".to_owned(),
                    class: Class::Integer,
                    plain: true,
                },
            );
        }
        let sql = format!("CREATE TABLE {name} ({}){without}", parts.join(", "));
        self.pending.push(sql);
        self.tables.push(Table {
            name,
            columns,
            key,
            generated,
        });
    }

    fn index(&mut self, table: usize) {
        let name = self.name("i");
        let table = self.tables[table].clone();
        let rng = &mut self.rng;
        let column = &table.columns[rng.usize(..table.columns.len())].name;
        let on = match rng.u8(..4) {
            0 => format!("{column} DESC"),
            1 => format!("{column} COLLATE NOCASE, k"),
            2 => format!("length({column})"),
            _ => column.clone(),
        };
        let part = match rng.u8(..3) {
            0 => format!(" WHERE {column} IS NOT NULL"),
            _ => String::new(),
        };
        let sql = format!("CREATE INDEX {name} ON {} ({on}){part}", table.name);
        self.pending.push(sql);
    }

    fn trigger(&mut self, table: usize) {
        if self.rng.bool() {
            return;
        }
        let name = self.name("r");
        let table = &self.tables[table].name;
        let event = one(&mut self.rng, &["INSERT", "UPDATE", "DELETE"]);
        self.pending.push(format!(
            "CREATE TRIGGER {name} AFTER {event} ON {table} BEGIN \
             INSERT INTO {COUNTER} VALUES ('{table} {event}', 1) ON CONFLICT (k) DO UPDATE SET n = n + 1; END"
        ));
    }

    fn fill(&mut self, table: usize) {
        let table = self.tables[table].clone();
        for _ in 0..2 {
            let sql = format!("INSERT OR IGNORE {}", rows(&mut self.rng, &table, 6));
            self.pending.push(sql);
        }
    }

    fn any(&mut self) -> Table {
        self.tables[self.rng.usize(..self.tables.len())].clone()
    }

    fn insert(&mut self) -> Statement {
        let table = self.any();
        let rng = &mut self.rng;
        let count = rng.usize(1..4);
        let rows = rows(rng, &table, count);
        let column = table.columns[1].name.clone();
        let sql = match rng.u8(..6) {
            0 => format!("INSERT {rows}"),
            1 => format!("INSERT OR REPLACE {rows}"),
            2 => format!("INSERT {rows} ON CONFLICT DO NOTHING RETURNING k"),
            3 => format!(
                "INSERT {rows} ON CONFLICT (k) DO UPDATE SET {column} = excluded.{column} RETURNING *"
            ),
            4 => format!("INSERT {rows} RETURNING k, typeof({column}), {column}"),
            _ => format!("INSERT OR IGNORE {rows}"),
        };
        Statement::write(sql)
    }

    fn update(&mut self) -> Statement {
        let table = self.any();
        let rng = &mut self.rng;
        let writable = &table.columns[1..table.columns.len() - table.generated];
        let column = &writable[rng.usize(..writable.len())];
        let new = expression(rng, &table.columns, column.class, 2);
        let test = condition(rng, &table.columns, 1);
        let returning = one(rng, &["", " RETURNING *", " RETURNING k"]);
        let (name, column) = (&table.name, &column.name);
        Statement::write(format!(
            "UPDATE {name} SET {column} = {new} WHERE {test}{returning}"
        ))
    }

    fn delete(&mut self) -> Statement {
        let table = self.any();
        let test = condition(&mut self.rng, &table.columns, 1);
        let returning = one(&mut self.rng, &["", " RETURNING k"]);
        let name = &table.name;
        Statement::write(format!(
            "DELETE FROM {name} WHERE {test} AND k > 3{returning}"
        ))
    }

    fn alter(&mut self) -> Statement {
        let name = self.name("a");
        let at = self.rng.usize(..self.tables.len());
        let default = present(&mut self.rng, Class::Integer);
        let table = &mut self.tables[at];
        let sql = format!(
            "ALTER TABLE {} ADD COLUMN {name} INT DEFAULT {default}",
            table.name
        );
        let behind = table.columns.len() - table.generated;
        table.columns.insert(
            behind,
            Column {
                name,
                class: Class::Integer,
                plain: true,
            },
        );
        Statement::write(sql)
    }

    /// Several writes, of which one may fail: then none counts.
    fn transaction(&mut self) -> Statement {
        let parts: Vec<String> = (0..self.rng.usize(2..4))
            .map(|_| match self.rng.u8(..3) {
                0 => self.insert().sql,
                1 => self.update().sql,
                _ => self.delete().sql,
            })
            // Whose rows would be the answer's depends on who answers.
            .map(|sql| {
                sql.split(" RETURNING")
                    .next()
                    .unwrap_or_default()
                    .to_owned()
            })
            .collect();
        Statement::write(parts.join("; "))
    }

    /// One or several tables, with the columns of all.
    fn source(&mut self) -> (String, Vec<Column>) {
        let tables: Vec<Table> = (0..self.rng.usize(1..4)).map(|_| self.any()).collect();
        let mut columns: Vec<Column> = Vec::new();
        let mut text = String::new();
        for (number, table) in tables.iter().enumerate() {
            let alias = format!("x{number}");
            let own: Vec<Column> = table
                .columns
                .iter()
                .map(|column| Column {
                    name: format!("{alias}.{}", column.name),
                    ..column.clone()
                })
                .collect();
            let name = &table.name;
            if number == 0 {
                text = format!("{name} AS {alias}");
            } else {
                let rng = &mut self.rng;
                let here = &own[rng.usize(..own.len())].name;
                let there = &columns[rng.usize(..columns.len())].name;
                let join = one(rng, &["JOIN", "LEFT JOIN"]);
                let operator = one(rng, &["=", "=", "=", "IS", "<"]);
                text = format!("{text} {join} {name} AS {alias} ON {here} {operator} {there}");
            }
            columns.extend(own);
        }
        (text, columns)
    }

    fn test(&mut self, columns: &[Column]) -> String {
        let inner = self.any();
        let rng = &mut self.rng;
        let column = &columns[rng.usize(..columns.len())].name;
        let own = &inner.columns[rng.usize(..inner.columns.len())].name;
        let name = &inner.name;
        match rng.u8(..8) {
            0 => format!("{column} IN (SELECT {own} FROM {name})"),
            1 => format!("EXISTS (SELECT 1 FROM {name} AS y WHERE y.{own} = {column})"),
            2 => format!("{column} > (SELECT min({own}) FROM {name})"),
            3 => "1".to_owned(),
            _ => condition(rng, columns, 2),
        }
    }

    fn query(&mut self) -> Statement {
        let (source, columns) = self.source();
        let test = self.test(&columns);
        let rng = &mut self.rng;
        let count = rng.usize(1..4);
        let shown: Vec<String> = (0..count)
            .map(|number| format!("{} AS s{number}", expression(rng, &columns, Class::Any, 2)))
            .collect();
        let inner = format!("SELECT {} FROM {source} WHERE {test}", shown.join(", "));
        if rng.bool() {
            return Statement::read(inner);
        }
        // Every value decides, so that equal rows are the same.
        let order: Vec<String> = (0..count)
            .map(|number| format!("s{number} COLLATE BINARY, typeof(s{number})"))
            .collect();
        let (limit, offset) = (rng.u8(1..8), rng.u8(..3));
        Statement {
            sql: format!(
                "SELECT * FROM ({inner}) ORDER BY {} LIMIT {limit} OFFSET {offset}",
                order.join(", ")
            ),
            ordered: true,
            reads: true,
        }
    }

    fn aggregate(&mut self) -> Statement {
        let (source, columns) = self.source();
        let test = self.test(&columns);
        let rng = &mut self.rng;
        let plain: Vec<Column> = columns.iter().filter(|c| c.plain).cloned().collect();
        let key = &plain[rng.usize(..plain.len())].name;
        let (number, real, text) = (
            expression(rng, &plain, Class::Integer, 1),
            expression(rng, &plain, Class::Real, 1),
            expression(rng, &plain, Class::Text, 1),
        );
        let function = match rng.u8(..8) {
            0 => format!("sum({number})"),
            1 => format!("total({real})"),
            2 => format!("count({text})"),
            3 => format!("count(DISTINCT {text})"),
            4 => format!("max({text})"),
            5 => format!("min({number})"),
            6 => format!("count(*) FILTER (WHERE {number} > 3)"),
            _ => format!("sum(DISTINCT {number})"),
        };
        let having = one(rng, &["", "", " HAVING count(*) > 1"]);
        Statement::read(match rng.u8(..3) {
            0 => format!("SELECT {function}, count(*) FROM {source} WHERE {test}"),
            1 => format!("SELECT DISTINCT {key} FROM {source} WHERE {test}"),
            _ => format!(
                "SELECT {key}, {function}, count(*) FROM {source} WHERE {test} GROUP BY {key}{having}"
            ),
        })
    }

    fn window(&mut self) -> Statement {
        let table = self.any();
        let rng = &mut self.rng;
        let plain: Vec<Column> = table.columns.iter().filter(|c| c.plain).cloned().collect();
        let part = &plain[rng.usize(..plain.len())].name;
        let number = expression(rng, &plain, Class::Integer, 1);
        let function = match rng.u8(..5) {
            0 => "row_number()".to_owned(),
            1 => format!("sum({number})"),
            2 => format!("lag({number}, 2)"),
            3 => "rank()".to_owned(),
            _ => format!("first_value({number})"),
        };
        let frame = one(rng, &["", " ROWS BETWEEN 1 PRECEDING AND CURRENT ROW"]);
        let name = &table.name;
        Statement::read(format!(
            "SELECT k, {function} OVER (PARTITION BY {part} ORDER BY k{frame}) FROM {name}"
        ))
    }

    fn compound(&mut self) -> Statement {
        let (one_table, other_table) = (self.any(), self.any());
        let rng = &mut self.rng;
        let class = [Class::Integer, Class::Text][rng.usize(..2)];
        let mut of = |table: &Table| {
            let plain: Vec<Column> = table.columns.iter().filter(|c| c.plain).cloned().collect();
            let shown = expression(rng, &plain, class, 1);
            format!("SELECT {shown} FROM {}", table.name)
        };
        let (first, second) = (of(&one_table), of(&other_table));
        let operator = one(rng, &["UNION", "UNION ALL", "EXCEPT", "INTERSECT"]);
        Statement::read(format!("{first} {operator} {second}"))
    }

    fn common(&mut self) -> Statement {
        let (source, columns) = self.source();
        let rng = &mut self.rng;
        let (a, b) = (
            expression(rng, &columns, Class::Integer, 1),
            expression(rng, &columns, Class::Text, 1),
        );
        let most = rng.u8(2..20);
        Statement::read(format!(
            "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {most}), \
             w (a, b) AS (SELECT {a}, {b} FROM {source}) \
             SELECT i, a, b FROM n JOIN w ON w.a = n.i"
        ))
    }
}

/// A literal that is not NULL.
fn present(rng: &mut Rng, class: Class) -> String {
    loop {
        let literal = value(rng, class);
        if literal != "NULL" {
            return literal;
        }
    }
}

/// `INTO t (…) VALUES …` with this many rows.
fn rows(rng: &mut Rng, table: &Table, count: usize) -> String {
    let written = &table.columns[..table.columns.len() - table.generated];
    let names: Vec<&str> = written.iter().map(|column| &*column.name).collect();
    let row = |rng: &mut Rng| {
        let mut values: Vec<String> = written.iter().map(|c| value(rng, c.class)).collect();
        values[0] = match table.key {
            Class::Integer => rng.u8(1..30).to_string(),
            Class::Real | Class::Text | Class::Any => present(rng, table.key),
        };
        format!("({})", values.join(", "))
    };
    let rows: Vec<String> = (0..count).map(|_| row(rng)).collect();
    let name = &table.name;
    format!(
        "INTO {name} ({}) VALUES {}",
        names.join(", "),
        rows.join(", ")
    )
}
