//! The readings of a file.

use std::io::Write as _;

use super::*;

const FILE: &str = "time,node,sensor,value,seq
2026-01-01T08:39:56.25Z,11,temperature,36.62,254
2026-01-01T08:39:56.25Z,11,parent,1,254
2026-01-01T08:39:56.25Z,11,rssi,-71,254
2026-01-01T08:39:59.75Z,kitchen,temperature,19,7
2026-01-01T08:39:59.75Z,kitchen,CO2,,7
2026-01-01T08:40:10Z,11,temperature,36.5,255
";

fn file(name: &str, text: &str) -> (tempfile::TempDir, String) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join(name);
    std::fs::write(&path, text).unwrap();
    let path = path.display().to_string();
    (dir, path)
}

#[tokio::test]
async fn a_file_becomes_readings_and_node_states_with_a_room_for_each_node() {
    let db = writable(true).await;
    let (_dir, path) = file("log.csv", FILE);
    let (code, out, error) = command(db.url(), &["--create-tables", "--from-csv", &path]).await;
    assert_eq!(code, Some(0), "{error}");
    assert_eq!(out, "4 readings and 3 node states, from 2026-01-01T08:39:56 to 2026-01-01T08:40:10\n");
    // Cut to the second, not rounded.
    assert_eq!(
        db.number(
            "SELECT COUNT(*) FROM Reading WHERE time IN ('2026-01-01 08:39:56', '2026-01-01 08:39:59', '2026-01-01 08:40:10')"
        )
        .await,
        4
    );
    let placed = "SELECT COUNT(*) FROM Reading JOIN Location ON Location.id = locationId JOIN House ON House.id = houseId JOIN Room ON Room.id = roomId
                  WHERE address = 'log' AND ((nodeId = 11 AND Room.name = 'Node 11') OR (nodeId = 1000 AND Room.name = 'kitchen'))";
    assert_eq!(db.number(placed).await, 4);
    assert_eq!(db.number("SELECT COUNT(*) FROM Reading WHERE value IS NULL AND nodeId = 1000").await, 1);
    assert_eq!(
        db.number("SELECT COUNT(*) FROM NodeState WHERE nodeId = 11 AND parent = 1 AND rssi = -71 AND seq_num = 254").await,
        1
    );
    assert_eq!(db.number("SELECT COUNT(*) FROM NodeState WHERE parent IS NULL AND rssi IS NULL").await, 2);

    // Again, and with more at the end: what is there is not doubled.
    let (code, out, _) = command(db.url(), &["--from-csv", &path]).await;
    assert_eq!((code, out.starts_with("nothing to add; 3 packets were passed over")), (Some(0), true), "{out}");
    std::fs::write(&path, format!("{FILE}2026-01-01T08:41:00Z,kitchen,temperature,20,8\n")).unwrap();
    let (_, out, _) = command(db.url(), &["--from-csv", &path]).await;
    assert!(out.starts_with("1 readings and 1 node states"), "{out}");
    assert_eq!((db.number("SELECT COUNT(*) FROM Node").await, db.number("SELECT COUNT(*) FROM House").await), (2, 1));
}

#[tokio::test]
async fn a_wrong_line_ends_it_with_its_number_and_what_stands_before_stays() {
    let db = writable(true).await;
    // The packet before a line that cannot be read may go on in it: it is not taken half.
    for (line, words, there) in [
        ("2026-01-01T08:41:00Z,11,temperature,warm,1", "line 8: \"warm\" is not a finite number", 3),
        ("2126-01-01T08:41:00Z,11,temperature,1,1", "line 8: 2126-01-01T08:41:00 lies in the future", 4),
        ("2026-01-01T08:41:00Z,11", "line 8: it has 2 fields only", 4),
    ] {
        let (_dir, path) = file("log.csv", &format!("{FILE}{line}\n"));
        let (code, out, error) = command(db.url(), &["--create-tables", "--from-csv", &path]).await;
        assert_eq!((code, out.as_str()), (Some(2), ""), "{error}");
        assert!(error.starts_with("error: ") && error.contains(words) && error.lines().count() == 1, "{error}");
        assert_eq!(db.number("SELECT COUNT(*) FROM Reading").await, there, "{line}");
    }
    let (_dir, path) = file("log.csv.xz", "this is not packed");
    let (code, _, error) = command(db.url(), &["--from-csv", &path]).await;
    assert_eq!(code, Some(2));
    assert!(error.lines().last().unwrap().contains("xz"), "{error}");
}

#[tokio::test]
async fn standard_input_is_read_too_and_a_rate_is_kept() {
    let db = writable(true).await;
    let lines: Vec<String> = (0..50).map(|second| format!("2026-01-01T00:00:{second:02},1,T,{second}\n")).collect();
    let text = format!("time,node,sensor,value\n{}", lines.concat());
    let began = Instant::now();
    let mut child = packhorse()
        .args(["-q", "datagen", "--url", db.url(), "--create-tables", "--from-csv", "-", "--rate", "40"])
        .stdin(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    assert!(tokio::task::spawn_blocking(move || child.wait().unwrap()).await.unwrap().success());
    assert_eq!(db.number("SELECT COUNT(*) FROM Reading").await, 50);
    // 100 rows are reckoned, a packet's node state with them, which is not there: 2 s and more.
    assert!(began.elapsed() > Duration::from_secs(1), "{:?}", began.elapsed());
}

#[tokio::test]
async fn real_logs_are_read_whole() {
    for (name, readings, states) in [("uci_energy.csv.xz", 20_000, false), ("cogent_greenhouse.csv.xz", 20_000, true)] {
        let path = support::greenhouse::shared().join("data").join(name);
        if !path.exists() {
            println!("SKIPPED: {} is not there (set PACKHORSE_SHARED)", path.display());
            return;
        }
        let db = writable(true).await;
        let head = std::process::Command::new("sh").args(["-c", "xz -dc \"$0\" | head -n 30000"]).arg(&path).output().unwrap();
        let (_dir, cut) = file("head.csv", &String::from_utf8(head.stdout).unwrap());
        let (code, out, error) = command(db.url(), &["--create-tables", "--from-csv", &cut]).await;
        assert_eq!(code, Some(0), "{error}");
        println!("{name}: {out}");
        assert!(db.number("SELECT COUNT(*) FROM Reading").await >= readings);
        assert_eq!(db.number("SELECT COUNT(*) FROM NodeState").await > 0, states);
        assert_eq!(db.number("SELECT COUNT(*) FROM Reading WHERE locationId IS NULL").await, 0);
    }
}
