//! What every destination must do behind the [`Sink`] port, whichever server stands there: one suite, run against each.
//!
//! Where servers may differ, the suite says in which ways ([`States`]); what a server really holds is counted by SQL.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod support;

use std::time::Duration;

use packhorse::{
    domain::{
        Column, Deployment, Entity, EntityKind, Epoch, Generation, House, Location, Micros, Node, Outcome, RemoteId, Room,
        RoomType, Rows, SensorType, Seq, SourceId, Stream, Verdict,
    },
    ports::{Ask, Bounds, Delivery, Presence, PushStatus, Sink},
    rest::{Auth, Options, RestSink},
};
use sqlx::{AssertSqlSafe, ConnectOptions as _, sqlite::SqliteConnectOptions};
use support::{Proxy, gateway::Central};

/// What becomes of a node state that is sent twice.
#[derive(Clone, Copy, PartialEq, Eq)]
enum States {
    Merged,
    Doubled,
}

/// A server, and a sink that reaches it over a link.
struct Place {
    _dir: tempfile::TempDir,
    central: Central,
    proxy: Proxy,
    sink: RestSink,
    states: States,
}

impl Place {
    async fn new(manner: &'static str, states: States) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let central = Central::start(dir.path(), manner).await;
        let proxy = Proxy::start(central.addr).await;
        let sink = RestSink::new(Options {
            url: format!("http://{}/rest/", proxy.addr()),
            auth: Auth::None,
            ca_pem: None,
            client_identity_pem: None,
            proxy: None,
            request_bytes_max: 1 << 20,
            connect_deadline: Duration::from_secs(5),
            answer_deadline: Duration::from_secs(10),
            stall_deadline: Options::STALL_DEADLINE,
            source: SourceId(0xfeed),
        });
        Self { _dir: dir, central, proxy, sink: sink.unwrap(), states }
    }

    async fn number(&self, sql: &str) -> i64 {
        let options = SqliteConnectOptions::new().filename(self.central.database()).read_only(true);
        sqlx::query_scalar(AssertSqlSafe(sql.to_owned())).fetch_one(&mut options.connect().await.unwrap()).await.unwrap()
    }

    /// A house with a room, a node in it, and a sensor type; the id of the location.
    async fn catalog(&self) -> RemoteId {
        let sink = &self.sink;
        let make = async |id, entity: Entity<RemoteId>| sink.create(id, &entity).await.unwrap().id;
        make(Some(RemoteId(0)), temperature()).await;
        let deployment = make(None, Entity::Deployment(deployment())).await;
        let house = make(None, Entity::House(house(deployment, "1 High St."))).await;
        let kind = make(None, Entity::RoomType(RoomType { name: Some("Wet".into()) })).await;
        let room = make(None, Entity::Room(Room { room_type: Some(kind), name: Some("Kitchen".into()) })).await;
        let location = make(None, Entity::Location(Location { house: Some(house), room: Some(room) })).await;
        make(Some(RemoteId(11)), Entity::Node(Node { location: Some(location), node_type: None })).await;
        location
    }
}

fn temperature() -> Entity<RemoteId> {
    let text = |text: &str| Some(text.to_owned());
    Entity::SensorType(SensorType {
        name: text("Temperature"),
        code: text("T"),
        units: text("deg.C"),
        coefficients: [Some(-39.6), Some(0.01), Some(0.0), None],
    })
}

fn deployment() -> Deployment {
    Deployment { name: Some("Pilot".into()), description: Some("a first one".into()), start: Some(at(0)), end: None }
}

fn house(deployment: RemoteId, address: &str) -> House<RemoteId> {
    House { deployment: Some(deployment), address: Some(address.into()), start: Some(at(0)), end: None }
}

/// So many seconds into 2013.
fn at(second: i64) -> Micros {
    Micros((1_356_998_400 + second) * 1_000_000)
}

fn delivery(rows: Rows) -> Delivery {
    let bounds = Bounds {
        source: SourceId(0xfeed),
        generation: Generation(0),
        epoch: Epoch(1),
        first: Seq(0),
        end: Seq(rows.len() as u64),
        cursor: Seq(0),
        taken: None,
    };
    Delivery { bounds, rows }
}

fn ints(seconds: &[i64], value: impl Fn(i64) -> Option<i64>) -> Column {
    Column::Int(seconds.iter().map(|second| value(*second)).collect())
}

/// Readings of a node at these seconds.
fn readings(node: i64, location: Option<RemoteId>, seconds: &[i64]) -> Rows {
    let value = Column::Float(seconds.iter().map(|second| Some(*second as f32 / 8.0 + 0.1)).collect());
    let columns = vec![
        ints(seconds, |second| Some(at(second).0)),
        ints(seconds, |_| Some(node)),
        ints(seconds, |_| Some(0)),
        ints(seconds, |_| location.map(|id| id.0)),
        value,
    ];
    Rows::new(Stream::Reading, columns)
}

/// Node states of node 11; their id is their second.
fn states(seconds: &[i64]) -> Rows {
    let columns = vec![
        ints(seconds, Some),
        ints(seconds, |second| Some(at(second).0)),
        ints(seconds, |_| Some(11)),
        ints(seconds, |_| None),
        ints(seconds, |second| Some(123_456_789_012 + second)),
        ints(seconds, |second| Some(second % 256)),
        ints(seconds, |_| Some(-70)),
    ];
    Rows::new(Stream::NodeState, columns)
}

async fn deliver(place: &Place, rows: Rows) -> Outcome {
    place.sink.deliver(&delivery(rows)).await.outcome
}

async fn accepted(place: &Place, rows: Rows) {
    let outcome = deliver(place, rows).await;
    assert_eq!(outcome.verdict, Verdict::Accepted, "{outcome}");
}

/// What was created is found again as it was given, under the id that was told.
async fn what_is_created_is_found(place: &Place) {
    let odd = ["1_High*St. +50% #2", &"x".repeat(255), "'quoted' \"twice\" & more; <b>"];
    let deployment = place.sink.create(None, &Entity::Deployment(deployment())).await.unwrap();
    assert!(place.sink.find(&Ask::All(EntityKind::Deployment)).await.unwrap().contains(&deployment));
    for address in odd {
        let made = place.sink.create(None, &Entity::House(house(deployment.id, address))).await.unwrap();
        let ask = Ask::House { deployment: Some(deployment.id), address: Some(address.into()) };
        let found = place.sink.find(&ask).await.unwrap();
        assert!(found.contains(&made), "{address}: {made:?} is not among {found:?}");
    }
    let ask = Ask::House { deployment: Some(deployment.id), address: Some("nobody lives here".into()) };
    assert_eq!(place.sink.find(&ask).await.unwrap(), []);
    place.sink.create(Some(RemoteId(7)), &temperature()).await.unwrap();
    let kinds = place.sink.find(&Ask::All(EntityKind::SensorType)).await.unwrap();
    assert!(kinds.iter().any(|kind| kind.id == RemoteId(7) && kind.entity == temperature()), "{kinds:?}");
}

/// A node that moves keeps its id.
async fn what_is_updated_is_as_it_was_given(place: &Place) {
    let location = place.catalog().await;
    let moved =
        packhorse::ports::RemoteEntity { id: RemoteId(11), entity: Entity::Node(Node { location: None, node_type: None }) };
    place.sink.update(&moved).await.unwrap();
    assert!(place.sink.find(&Ask::All(EntityKind::Node)).await.unwrap().contains(&moved));
    let back =
        packhorse::ports::RemoteEntity { entity: Entity::Node(Node { location: Some(location), node_type: None }), ..moved };
    place.sink.update(&back).await.unwrap();
    assert_eq!(place.sink.find(&Ask::All(EntityKind::Node)).await.unwrap(), [back]);
}

/// Rows arrive with their values, once; and what has arrived can be asked for.
async fn accepted_rows_are_there(place: &Place) {
    let location = place.catalog().await;
    let seconds: Vec<i64> = (0..500).map(|row| row * 7).collect();
    accepted(place, readings(11, Some(location), &seconds)).await;
    accepted(place, readings(11, None, &[10_000])).await;
    accepted(place, states(&seconds)).await;
    assert_eq!(place.number("SELECT count(*) FROM Reading").await, 501);
    assert_eq!(place.number("SELECT count(*) FROM NodeState").await, 500);
    assert_eq!(place.number(&format!("SELECT count(*) FROM Reading WHERE locationId = {}", location.0)).await, 500);
    assert_eq!(place.sink.count(Stream::Reading, 11, at(0), at(700)).await.unwrap(), 100);
    assert_eq!(place.sink.count(Stream::NodeState, 11, at(0), at(700)).await.unwrap(), 100);
    assert_eq!(place.sink.count(Stream::Reading, 12, at(0), at(700)).await.unwrap(), 0);
    for rows in [readings(11, None, &[0, 1, 7, 3_493, 3_494]), states(&[0, 1, 7, 3_493, 3_494])] {
        let expected = [Presence::There, Presence::Absent, Presence::There, Presence::There, Presence::Absent];
        assert_eq!(place.sink.arrived(&rows).await.unwrap(), expected, "{}", rows.stream());
    }
}

/// A repeat of readings changes nothing; of node states it is what was said of this server.
async fn a_repeat_is_what_the_server_makes_of_it(place: &Place) {
    let location = place.catalog().await;
    for _ in 0..2 {
        accepted(place, readings(11, Some(location), &[1, 2, 3])).await;
        accepted(place, states(&[1, 2, 3])).await;
    }
    assert_eq!(place.number("SELECT count(*) FROM Reading").await, 3);
    let expected = if place.states == States::Merged { 3 } else { 6 };
    assert_eq!(place.number("SELECT count(*) FROM NodeState").await, expected);
    assert_eq!(place.sink.arrived(&states(&[1, 2, 3])).await.unwrap(), [Presence::There; 3]);
}

/// Of a request with a row that cannot be stored a legacy server stores nothing, a receiver the others; it is not said to be accepted, and
/// asking tells what is there.
async fn of_a_request_with_a_bad_row_nothing_or_all_others_are_stored(place: &Place) {
    let location = place.catalog().await;
    let mut rows = readings(11, Some(location), &(0..50).collect::<Vec<_>>());
    rows.extend(readings(999, None, &[60]));
    let outcome = deliver(place, rows.clone()).await;
    assert!(matches!(outcome.verdict, Verdict::Refused | Verdict::Unknown), "{outcome}");
    let (stored, presence) = if place.sink.is_packhorse() { (50, Presence::There) } else { (0, Presence::Absent) };
    assert_eq!(place.number("SELECT count(*) FROM Reading").await, stored);
    assert_eq!(place.sink.arrived(&rows).await.unwrap(), [vec![presence; 50], vec![Presence::Absent]].concat());
    // And the next one is not the worse for it.
    accepted(place, readings(11, Some(location), &[1])).await;
}

/// A lost answer is an unknown outcome, and asking tells that the rows are there; an unreachable server has stored nothing.
async fn a_lost_answer_is_unknown_and_a_cut_link_is_not_stored(place: &Place) {
    let location = place.catalog().await;
    place.proxy.lose_next_answer_of("/rest/bulk/");
    let outcome = deliver(place, readings(11, Some(location), &[1, 2])).await;
    assert_eq!(outcome.verdict, Verdict::Unknown, "{outcome}");
    assert_eq!(
        place.sink.arrived(&readings(11, None, &[1, 2, 3])).await.unwrap(),
        [Presence::There, Presence::There, Presence::Absent]
    );
    place.proxy.cut().await;
    let mut outcome = deliver(place, readings(11, Some(location), &[3])).await;
    if outcome.verdict == Verdict::Unknown {
        // A connection that was kept broke under the request; a new one does not come about.
        outcome = deliver(place, readings(11, Some(location), &[3])).await;
    }
    assert_eq!(outcome.verdict, Verdict::NotStored, "{outcome}");
    assert_ne!(place.sink.find(&Ask::All(EntityKind::Node)).await.unwrap_err().verdict, Verdict::Accepted);
    assert_ne!(place.sink.arrived(&readings(11, None, &[1])).await.unwrap_err().verdict, Verdict::Accepted);
    place.proxy.restore().await;
    accepted(place, readings(11, Some(location), &[3])).await;
    assert_eq!(place.number("SELECT count(*) FROM Reading").await, 3);
}

/// The gateway's status is taken.
async fn a_status_is_taken(place: &Place) {
    let status = PushStatus { hostname: "h".repeat(25), version: "1".repeat(20), localtime: at(5) };
    place.sink.push_status(&status).await.unwrap();
    assert_eq!(place.number("SELECT count(*) FROM Pushstatus").await, 1);
}

/// The suite for one kind of server.
macro_rules! conforms {
    ($name:ident, $manner:literal, $states:expr, [$($case:ident),* $(,)?]) => {
        mod $name {
            $(
                #[tokio::test(flavor = "multi_thread")]
                async fn $case() {
                    super::$case(&super::Place::new($manner, $states).await).await;
                }
            )*
        }
    };
    ($($name:ident = $manner:literal, $states:expr;)*) => {
        $(conforms!($name, $manner, $states, [
            what_is_created_is_found,
            what_is_updated_is_as_it_was_given,
            accepted_rows_are_there,
            a_repeat_is_what_the_server_makes_of_it,
            of_a_request_with_a_bad_row_nothing_or_all_others_are_stored,
            a_lost_answer_is_unknown_and_a_cut_link_is_not_stored,
            a_status_is_taken,
        ]);)*
    };
}

conforms! {
    packhorse_receiver = "packhorse", super::States::Merged;
    legacy_server = "legacy", super::States::Merged;
    older_legacy_server = "legacy-old", super::States::Doubled;
}
