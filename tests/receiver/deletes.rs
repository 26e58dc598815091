//! Rows that are deleted.

use packhorse::receiver::Manner;
use serde_json::json;

use super::{assert_refused, assert_stored, bulk, reading, readings, seeded};

#[test]
fn a_delete_takes_what_its_filters_name_and_tells_how_many() {
    let central = seeded(Manner::Packhorse);
    assert_stored(&bulk(
        &central,
        &json!([reading("2013-01-01T00:05:00", 11, 0, 1.0), reading("2013-01-01T00:06:00", 12, 0, 1.0)]),
    ));
    let delete = |target: &str| central.call("DELETE", target, &[], None);
    assert_eq!(delete("/rest/reading/?nodeId=11&time=le_2013-01-01T00:05:00").text(), "{\"deleted\":1}");
    assert_eq!(delete("/rest/reading/?nodeId=11").text(), "{\"deleted\":0}");
    assert_eq!(delete("/rest/room/?id=2").text(), "{\"deleted\":1}");
    assert_eq!((readings(&central), central.number("SELECT count(*) FROM Room")), (1, 1));
}

#[test]
fn a_delete_of_a_whole_table_or_of_what_others_point_to_is_refused() {
    let central = seeded(Manner::Packhorse);
    assert_stored(&bulk(&central, &json!([reading("2013-01-01T00:05:00", 11, 0, 1.0)])));
    let delete = |target: &str| central.call("DELETE", target, &[], None);
    assert_refused(&delete("/rest/reading/"), 400, "which rows");
    assert_refused(&delete("/rest/reading/?sort(-time)"), 400, "which rows");
    assert_refused(&delete("/rest/node/?id=11"), 409, "point to");
    assert_refused(&delete("/rest/node/?colour=11"), 400, "colour");
    assert_refused(&delete("/rest/nonsense/?id=11"), 404, "nonsense");
    assert_refused(&delete("/rest/pushstatus/?id=1"), 405, "DELETE");
    assert_eq!((readings(&central), central.number("SELECT count(*) FROM Node")), (1, 3));
}
