//! Trouble with a destination. Rows are captured meanwhile, and wait.

use super::{Scene, stderr, stdout, told};
use crate::support::front::{Face, Front};

const HTML: &str = "HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: 48\r\nConnection: close\r\n\r\n<html><body>Welcome to hotel WiFi</body></html>\n";
const REDIRECT: &str =
    "HTTP/1.1 302 Found\r\nLocation: http://portal.example/login?token=hunter2\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
const UNAUTHORIZED: &str =
    "HTTP/1.1 401 Unauthorized\r\nContent-Type: application/json\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{}";
const OTHER_JSON: &str =
    "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 15\r\nConnection: close\r\n\r\n{\"hello\": true}";

async fn answered(canned: &'static str, words: &str) {
    let scene = Scene::set().await;
    let front = Front::start(scene.central.addr, Face::Canned(canned)).await;
    let scene = scene.behind(front.addr());
    scene.trouble(words, 1, 1, async |_| front.turn(Face::Real)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_for_people() {
    answered(HTML, "a page for people instead of JSON; check the url, and whether a login page or proxy answers").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redirect_to_a_portal() {
    answered(REDIRECT, "a redirect to http://portal.example/login, which is not followed").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn credentials_that_are_refused() {
    answered(UNAUTHORIZED, "check the token or the user and password").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn other_json_than_the_contracts() {
    answered(OTHER_JSON, "a success that the contract does not know; check the url").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_there() {
    let mut scene = Scene::set().await;
    scene.central.kill();
    told(&scene.check().await, 1, &["problem ", "takes no connection", "is the server running"]);
    let words = "nobody listens at that address and port; is the server running, and is the port right?";
    let once = scene.once().await;
    told(&once, 1, &[words]);
    assert!(stdout(&once).contains("0 readings delivered so far, 300 wait"), "{}", stdout(&once));
    let mut daemon = scene.daemon();
    daemon.says(words).await;
    tokio::time::sleep(std::time::Duration::from_secs(3)).await;
    assert_eq!(daemon.lines(words).len(), 1, "{}", daemon.log());
    scene.central.restart().await;
    scene.arrives().await;
    daemon.ends_well().await;
    scene.all_is_well().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_hangs() {
    let scene = Scene::set().await;
    let front = Front::start(scene.central.addr, Face::Silent).await;
    let scene = scene.behind(front.addr());
    let began = std::time::Instant::now();
    told(&scene.check().await, 1, &["problem ", "GET sensortype/: no answer within 12 s"]);
    assert!(began.elapsed().as_secs() < 30, "{:?}", began.elapsed());
    let once = scene.once().await;
    told(&once, 1, &["0 readings delivered so far, 300 wait"]);
    assert!(stderr(&once).contains("the deadline is over"), "{}", stderr(&once));
    let mut daemon = scene.daemon();
    daemon.says("packhorse runs").await;
    tokio::time::sleep(std::time::Duration::from_secs(3)).await;
    front.turn(Face::Real);
    scene.arrives().await;
    daemon.ends_well().await;
    scene.all_is_well().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_that_does_not_resolve() {
    let scene = Scene::set().await;
    let config = std::fs::read_to_string(scene.gateway.config()).unwrap();
    let wrong = config.replace(&format!("http://{}/", scene.central.addr), "https://no-such-host.invalid/");
    std::fs::write(scene.gateway.config(), wrong).unwrap();
    told(&scene.check().await, 1, &["problem ", "name no-such-host.invalid cannot be resolved", "is the link up"]);
    told(&scene.once().await, 1, &["the server's name cannot be resolved; is the link up"]);
    std::fs::write(scene.gateway.config(), config).unwrap();
    scene.all_is_well().await;
}
