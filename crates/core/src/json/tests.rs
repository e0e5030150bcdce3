use super::*;
use proptest::prelude::*;

#[test]
fn order_space_escapes_and_spelling_of_numbers_do_not_count() {
    assert!(same(r#"{"a": 1, "b": [true, null]}"#, r#"{"b":[true,null],"a":1.0}"#));
    assert!(same("100000000000000000000", "1e20"));
    assert!(same("[-0.0, 1.10, 0.00]", "[0,11E-1,0]"));
    assert!(same(r#""\u0041\/\u00e9\ud83d\ude00""#, r#""A/é😀""#));
    assert!(same(r#""\n\u0000""#, r#""\u000A\u0000""#));
    assert!(same(r#"{"a":1,"a":2}"#, r#"{"a":2}"#));
    assert!(same(r#"{"\u0061":1,"a":2}"#, r#"{"a":2}"#));
}

#[test]
fn different_values_stay_different() {
    for (one, other) in [
        ("12345678901234567890", "12345678901234567891"),
        ("0.1", "0.10000000000000001"),
        ("1e400", "1e401"),
        ("1e400", "2e400"),
        ("1e99999999999999999999", "1e99999999999999999998"),
        ("[1,2]", "[2,1]"),
        ("[[],[]]", "[[[]]]"),
        ("1", r#""1""#),
        ("null", r#""null""#),
        ("{}", "[]"),
        (r#"{"a":{"b":1}}"#, r#"{"a":1,"b":1}"#),
        (r#""\\n""#, r#""\n""#),
        (r#""\ud800""#, r#""\ud801""#),
        (r#""\ud800""#, r#""\\ud800""#),
        (r#"{"a":1,"a":2}"#, r#"{"a":1}"#),
        (r#"["a,b"]"#, r#"["a","b"]"#),
        (r#"["\",\""]"#, r#"["",""]"#),
    ] {
        assert!(!same(one, other), "{one} and {other}");
        assert!(same(one, one) && same(other, other));
    }
}

#[test]
fn what_is_not_json_is_said_so() {
    for text in [
        "",
        " ",
        "{",
        "[",
        "]",
        "[1",
        "[1,]",
        "[,1]",
        "{,}",
        r#"{"a"}"#,
        r#"{"a":}"#,
        r#"{"a":1,}"#,
        r#"{a:1}"#,
        "01",
        "-",
        "1.",
        ".5",
        "1e",
        "+1",
        "tru",
        "nulll",
        "1 2",
        r#"""#,
        r#""\"#,
        r#""\x""#,
        r#""\u12g4""#,
        "\"\n\"",
        "[1}",
        r#"{"a":1]"#,
        "'a'",
        "NaN",
        r#""\u00""#,
        "\"\\é\"",
    ] {
        assert_eq!(survey(text), None, "{text}");
        assert!(!same(text, text), "{text}");
    }
}

#[test]
fn members_that_come_twice_are_seen_in_their_own_object_only() {
    let duplicate = |text| survey(text).unwrap().duplicate_members;
    assert!(duplicate(r#"{"a":1,"a":1}"#));
    assert!(duplicate(r#"{"x":[{"b":1,"\u0062":2}],"y":1}"#));
    assert!(duplicate(r#"{"a":{"b":1},"a":2}"#));
    assert!(!duplicate(r#"{"a":{"a":{"a":1}},"b":[{"a":1},{"a":2}]}"#));
}

#[test]
fn numbers_that_a_double_changes_are_seen() {
    let beyond = |text| survey(text).unwrap().beyond_double;
    for text in ["0.1", "1.10", "-0", "1e20", "100000000000000000000", "9223372036854775807", "-9223372036854775808"] {
        assert!(!beyond(text), "{text}");
    }
    for text in [
        "18446744073709551615",
        "5e-324",
        "1.7976931348623157e308",
        "[1E+3]",
        "783312298938517.2",
        "0.30000000000000004",
    ] {
        assert!(!beyond(text), "{text}");
    }
    for text in [
        "783312298938517.3",
        "18446744073709551616",
        "1e400",
        "1e-400",
        "0.12345678901234567890",
        "[123456789.123456789123]",
    ] {
        assert!(beyond(text), "{text}");
    }
}

#[test]
fn deep_nesting_takes_no_stack() {
    let deep = "[".repeat(200_000) + &"]".repeat(200_000);
    assert!(survey(&deep).is_some());
    let deep = "[".repeat(20_000) + &"]".repeat(20_000);
    assert!(same(&deep, &deep));
}

fn json() -> impl Strategy<Value = serde_json::Value> {
    let leaf = prop_oneof![
        Just(serde_json::Value::Null),
        any::<bool>().prop_map(Into::into),
        any::<i64>().prop_map(Into::into),
        any::<u64>().prop_map(Into::into),
        (-1e15..1e15f64).prop_map(Into::into),
        any::<String>().prop_map(Into::into),
    ];
    leaf.prop_recursive(4, 32, 6, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..6).prop_map(Into::into),
            prop::collection::hash_map(any::<String>(), inner, 0..6)
                .prop_map(|members| serde_json::Value::Object(members.into_iter().collect())),
        ]
    })
}

proptest! {
    #[test]
    fn agrees_with_a_parser(one in json(), other in json()) {
        let (text, pretty) = (one.to_string(), serde_json::to_string_pretty(&one).unwrap());
        prop_assert!(same(&text, &pretty));
        prop_assert_eq!(same(&text, &other.to_string()), one == other);
        prop_assert!(survey(&text).is_some_and(|survey| !survey.duplicate_members));
    }

    #[test]
    fn up_to_15_digits_are_a_double(digits in 0u64..1_000_000_000_000_000, places in 0..15usize) {
        let text = format!("{digits:0width$}", width = places + 1);
        let literal = format!("{}.{}e3", &text[..text.len() - places], &text[text.len() - places..]);
        let literal = if places == 0 { text } else { literal };
        prop_assert_eq!(survey(&literal), Some(Survey::default()), "{}", literal);
    }

    #[test]
    fn takes_exactly_what_a_parser_takes(text in r#"[\[\]{}:,"0-9eE+.\\ntrulfase -]{0,12}"#) {
        let parsed = serde_json::from_str::<serde::de::IgnoredAny>(&text);
        prop_assert_eq!(survey(&text).is_some(), parsed.is_ok());
    }
}
