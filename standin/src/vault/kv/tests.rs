use super::super::moment;
use super::*;

fn at(second: i64) -> Timestamp {
    moment::some(second).now
}

fn ask(kv: &mut Versioned, second: i64, operation: Operation, path: &str, data: Value) -> Result<Said, Refusal> {
    let data = data.as_object().cloned().unwrap_or_default();
    let asked = Asked { operation, path: path.to_owned(), data, token: String::new() };
    let by = Actor { name: "case".to_owned(), client_id: "c".to_owned(), entity_id: String::new() };
    kv.handle(at(second), &by, &asked)
}

fn read(kv: &mut Versioned, second: i64) -> Result<Said, Refusal> {
    ask(kv, second, Operation::Read, "data/a", Value::Null)
}

/// A mount with one version of `a`, written at second 0 with these settings of the mount and of the secret.
fn written(mount: Value, secret: Value) -> Result<Versioned, Refusal> {
    let mut kv = Versioned::default();
    ask(&mut kv, 0, Operation::Update, "config", mount)?;
    ask(&mut kv, 0, Operation::Create, "metadata/a", secret)?;
    ask(&mut kv, 0, Operation::Update, "data/a", json!({ "data": { "k": "v" } }))?;
    Ok(kv)
}

fn is_there(kv: &mut Versioned, second: i64) -> bool {
    matches!(read(kv, second), Ok(Said::Data(_)))
}

#[test]
fn a_version_is_deleted_by_itself_at_the_earlier_of_both_times() -> Result<(), Refusal> {
    let after = |seconds: i64| json!({ "delete_version_after": seconds });
    for (mount, secret, gone_at) in [(10, 20, 10), (20, 10, 10), (0, 10, 10), (10, 0, 10)] {
        let mut kv = written(after(mount), after(secret))?;
        assert!(is_there(&mut kv, gone_at - 1), "{mount} {secret}");
        assert!(matches!(read(&mut kv, gone_at), Ok(Said::Gone(_))), "{mount} {secret}");
    }
    for (mount, secret) in [(0, 0), (-1, 10)] {
        assert!(is_there(&mut written(after(mount), after(secret))?, 1 << 30), "{mount} {secret}");
    }
    Ok(())
}

#[test]
fn an_undeleted_version_gets_a_new_time() -> Result<(), Refusal> {
    let mut kv = written(json!({}), json!({ "delete_version_after": 10 }))?;
    ask(&mut kv, 15, Operation::Update, "undelete/a", json!({ "versions": [1] }))?;
    assert!(is_there(&mut kv, 24) && !is_there(&mut kv, 25));
    Ok(())
}

#[test]
fn a_write_in_another_order_is_refused_and_changes_nothing() -> Result<(), Refusal> {
    let mut kv = written(json!({}), json!({}))?;
    for cas in [json!(0), json!(2), json!("x"), json!(-1)] {
        let body = json!({ "data": {}, "options": { "cas": cas } });
        assert!(ask(&mut kv, 1, Operation::Update, "data/a", body).is_err(), "{cas}");
    }
    assert_eq!(kv.secrets["a"].current, 1);
    assert!(is_there(&mut kv, 1));
    Ok(())
}

#[test]
fn a_refused_first_write_leaves_no_metadata() {
    let mut kv = Versioned::default();
    let body = json!({ "data": {}, "options": { "cas": 1 } });
    assert!(ask(&mut kv, 0, Operation::Create, "data/a", body).is_err());
    assert_eq!(kv.exists("data/a"), Some(false));
    assert_eq!(read(&mut kv, 0), Ok(Said::Nothing));
}
