//! What only a server can do: be set up not to be durable, be somebody else's, go away and come back, end one of two changes.

use packhorse::receiver::{Manner, Options, Receiver};
use serde_json::{Value, json};

use super::{
    SEED, assert_refused, assert_stored, bulk,
    central::{Central, on, zlib},
    database, fresh,
    mariadb::Mariadb,
    reading, readings, seeded, state, states,
};

fn refusal(url: String) -> String {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let options = Options::open("127.0.0.1:0".parse().unwrap(), url, Manner::Packhorse);
    runtime.block_on(Receiver::bind(options)).map(|_| ()).unwrap_err().to_string()
}

#[test]
fn a_server_that_does_not_flush_each_commit_is_refused_and_told_what_to_set() {
    let server = Mariadb::private();
    for flush in [0, 2] {
        let name = database(&server, flush);
        let error = refusal(server.url("root", "", &name));
        assert!(error.contains(&format!("innodb_flush_log_at_trx_commit = {flush}")) && error.contains("SET GLOBAL"), "{error}");
    }
}

#[test]
fn a_database_of_another_program_is_left_alone() {
    let server = Mariadb::shared();
    let name = database(server, 1);
    on(&server.admin(&name), "CREATE TABLE Reading (id INT)");
    assert!(refusal(server.url("root", "", &name)).contains("not the receiver's"));
}

#[test]
fn a_password_is_in_no_error() {
    let server = Mariadb::shared();
    let error = refusal(server.url("nobody", "hush", "absent"));
    assert!(error.contains("nobody") && !error.contains("hush"), "{error}");
}

#[test]
fn rows_outlive_the_receiver_and_a_server_that_is_killed() {
    let server = Mariadb::private();
    let name = database(&server, 1);
    let open = || Central::on_server(&server.url("root", "", &name), server.admin(&name));
    let central = open();
    central.sql(SEED);
    let row = |minute: i64| reading(&format!("2013-01-01T00:0{minute}:00"), 11, 0, 1.0);
    assert_stored(&bulk(&central, &json!([row(0)])));
    server.kill();
    let answer = bulk(&central, &json!([row(1)]));
    assert!(matches!(answer.status, 500 | 503), "{}", answer.text());
    assert_eq!(answer.header("packhorse-receiver"), Some("1"));
    server.start();
    // The server's settings are those of its start again.
    on(&server.admin("mysql"), "SET GLOBAL innodb_flush_log_at_trx_commit = 1");
    assert_stored(&bulk(&central, &json!([row(2)])));
    drop(central);
    let central = open();
    assert_eq!(readings(&central), 2);
}

#[test]
fn changes_that_meet_are_all_stored() {
    let central = seeded(Manner::Packhorse);
    // Each client stores the same rows in another order, so that they lock each other out.
    let bodies: Vec<Vec<u8>> = (0..6_usize)
        .map(|client| {
            let mut rows: Vec<Value> = (0..300)
                .map(|at| reading(&format!("2013-01-01T{:02}:{:02}:00", at / 60, at % 60), 11, 0, f64::from(at)))
                .collect();
            rows.extend((0..300).map(|at| state(&format!("2013-01-01T{:02}:{:02}:00", at / 60, at % 60), 12, Some(1))));
            rows.rotate_left(client * 83);
            if client % 2 == 1 {
                rows.reverse();
            }
            zlib(Value::from(rows).to_string().as_bytes())
        })
        .collect();
    std::thread::scope(|scope| {
        let central = &central;
        for body in &bodies {
            scope.spawn(move || {
                for _ in 0..5 {
                    assert_stored(&central.post("/rest/bulk/", body));
                }
            });
        }
    });
    assert_eq!((readings(&central), states(&central)), (300, 300));
}

#[test]
fn times_keep_their_microseconds_and_ids_their_bounds() {
    let central = seeded(Manner::Packhorse);
    for time in ["0001-01-01T00:00:00", "9999-12-31T23:59:59.999999", "2013-01-01T00:05:00.000001"] {
        assert_stored(&bulk(&central, &json!([reading(time, 11, 0, 1.0)])));
        assert_eq!(central.get(&format!("/rest/reading/?time={time}")).json()[0]["time"], json!(time));
    }
    assert_refused(&bulk(&central, &json!([reading("2013-01-01T00:05:00", 3_000_000_000, 0, 1.0)])), 422, "3000000000");
    let state = json!({"__table__": "NodeState", "time": "2013-01-01T00:05:00", "nodeId": 11, "parent": i64::MIN, "localtime": i64::MAX,
        "seq_num": i64::MAX, "rssi": i64::MIN});
    assert_stored(&bulk(&central, &json!([state])));
    assert_eq!(central.get("/rest/nodestate/").json()[0]["rssi"], json!(i64::MIN));
}

#[test]
fn a_text_is_kept_letter_by_letter_whatever_the_database_was_made_with() {
    let central = fresh(Manner::Packhorse);
    let name = "Höhe \u{1f600} ".to_owned() + &"x".repeat(900);
    let body = json!({"name": name, "description": "\u{0}"}).to_string();
    assert_eq!(central.post("/rest/deployment/", body).status, 201);
    assert_eq!(central.get("/rest/deployment/").json()[0]["name"], json!(name));
}
