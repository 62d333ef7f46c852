//! Expressions of a wanted class over given columns.

use fastrand::Rng;

/// What an expression yields, if not NULL.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Class {
    Integer,
    /// A multiple of an eighth.
    Real,
    Text,
    /// Anything.
    Any,
}

/// A column that expressions may use.
#[derive(Clone, Debug)]
pub(super) struct Column {
    /// As it is written, with its table where there are several.
    pub(super) name: String,
    pub(super) class: Class,
    /// Whether equal values look the same: neither 1 and 1.0, nor 'a' and 'A'.
    pub(super) plain: bool,
}

/// One of `choices`.
pub(super) fn one<'c, T: ?Sized>(rng: &mut Rng, choices: &[&'c T]) -> &'c T {
    choices[rng.usize(..choices.len())]
}

/// A literal.
pub(super) fn value(rng: &mut Rng, class: Class) -> String {
    if rng.u8(..10) == 0 {
        return "NULL".to_owned();
    }
    match class {
        Class::Integer => rng.i32(-9..50).to_string(),
        Class::Real => format!("{:?}", f64::from(rng.i32(-80..400)) / 8.0),
        Class::Text => {
            const TEXTS: [&str; 14] = [
                "''", "'a'", "'A'", "'b'", "'ab'", "'aB'", "'ä'", "'12'", "'1.5'", "' x '",
                "'it''s'", "'%'", "'zebra'", "'Ab_c'",
            ];
            one(rng, &TEXTS).to_owned()
        }
        Class::Any => match rng.u8(..4) {
            0 => value(rng, Class::Integer),
            1 => value(rng, Class::Real),
            2 => value(rng, Class::Text),
            _ => one(rng, &["x''", "x'00'", "x'ff01'", "x'61'"]).to_owned(),
        },
    }
}

/// An expression of a class, with functions and operators up to `depth` within each other.
pub(super) fn expression(rng: &mut Rng, columns: &[Column], class: Class, depth: u8) -> String {
    let fitting: Vec<&Column> = columns
        .iter()
        .filter(|column| class == Class::Any || column.class == class)
        .collect();
    if depth == 0 || rng.u8(..4) == 0 {
        return match fitting.is_empty() || rng.u8(..4) == 0 {
            true => value(rng, class),
            false => fitting[rng.usize(..fitting.len())].name.clone(),
        };
    }
    let mut of = |class| expression(rng, columns, class, depth - 1);
    match class {
        Class::Integer => {
            let (a, b, text) = (of(Class::Integer), of(Class::Integer), of(Class::Text));
            let any = of(Class::Any);
            let test = condition(rng, columns, depth - 1);
            match rng.u8(..16) {
                0 => format!("({a} + {b})"),
                1 => format!("({a} - {b})"),
                2 => format!("({a} * ({b} % 7))"),
                3 => format!("({a} / {b})"),
                4 => format!("({a} % {b})"),
                5 => format!("({a} & {b})"),
                6 => format!("({a} | {b})"),
                7 => format!("abs({a})"),
                8 => format!("length({any})"),
                9 => format!("instr({text}, 'a')"),
                10 => format!("unicode({text})"),
                11 => format!("CAST({any} AS INTEGER)"),
                12 => format!("CASE WHEN {test} THEN {a} ELSE {b} END"),
                13 => format!("coalesce({a}, {b})"),
                14 => format!("({test})"),
                _ => format!("nullif({a}, {b})"),
            }
        }
        Class::Real => {
            let (a, b) = (of(Class::Real), of(Class::Integer));
            match rng.u8(..6) {
                0 => format!("({a} + {b})"),
                1 => format!("(0.5 - {a})"),
                2 => format!("({a} * 2.0)"),
                3 => format!("CAST({b} AS REAL)"),
                4 => format!("ifnull({a}, 0.25)"),
                _ => format!("abs({a})"),
            }
        }
        Class::Text => {
            let (a, b, n) = (of(Class::Text), of(Class::Text), of(Class::Integer));
            let any = of(Class::Any);
            match rng.u8(..12) {
                0 => format!("({a} || {b})"),
                1 => format!("upper({a})"),
                2 => format!("lower({a})"),
                3 => format!("substr({a}, {n}, 3)"),
                4 => format!("trim({a})"),
                5 => format!("replace({a}, 'a', {b})"),
                6 => format!("typeof({any})"),
                7 => format!("quote({n})"),
                8 => format!("hex({a})"),
                9 => format!("CAST({n} AS TEXT)"),
                10 => format!("printf('%d-%s', {n}, {a})"),
                _ => format!("coalesce({a}, {b})"),
            }
        }
        Class::Any => {
            let class = [Class::Integer, Class::Real, Class::Text][rng.usize(..3)];
            expression(rng, columns, class, depth)
        }
    }
}

/// What is true, false or NULL.
pub(super) fn condition(rng: &mut Rng, columns: &[Column], depth: u8) -> String {
    let class = [Class::Integer, Class::Real, Class::Text, Class::Any][rng.usize(..4)];
    let mut of = |class| expression(rng, columns, class, depth.min(1));
    let (a, b, c, text) = (of(class), of(class), of(class), of(Class::Text));
    if depth > 0 && rng.u8(..3) == 0 {
        let (one, other) = (
            condition(rng, columns, depth - 1),
            condition(rng, columns, depth - 1),
        );
        return match rng.u8(..4) {
            0 => format!("(NOT {one})"),
            1 => format!("({one} OR {other})"),
            _ => format!("({one} AND {other})"),
        };
    }
    match rng.u8(..12) {
        0 => format!("({a} IS NULL)"),
        1 => format!("({a} IS NOT {b})"),
        2 => format!("({a} BETWEEN {b} AND {c})"),
        3 => format!("({a} IN ({b}, {c}))"),
        4 => format!("({a} NOT IN ({b}, {c}))"),
        5 => format!("({text} LIKE '%a%')"),
        6 => format!("({text} GLOB '[a-z]*')"),
        7 => format!("({text} = {text} COLLATE NOCASE)"),
        _ => {
            let operator = one(rng, &["=", "<>", "<", "<=", ">", ">="]);
            format!("({a} {operator} {b})")
        }
    }
}
