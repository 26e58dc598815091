//! HTTP proxies by the configuration and by the environment, between the real programs; and that no secret is ever said.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod support;

use std::os::unix::fs::PermissionsExt as _;

use support::{Scene, Schema, assert_exit, forward::Forward, gateway::Gateway};

/// A name that has no address: only a proxy leads there.
const NAME: &str = "central.packhorse.invalid";

async fn scene() -> (Scene, Forward) {
    let scene = Scene::without_rows(Schema::classic(), "packhorse").await;
    scene.source.run("INSERT INTO Reading SELECT '2024-01-01' + INTERVAL seq SECOND, 1, 0, 509, seq FROM seq_1_to_50").await;
    let proxy = Forward::start(scene.central.addr).await;
    (scene, proxy)
}

/// A gateway whose destination is a name, with more keys.
fn gateway(scene: &Scene, dir: &str, more: &str) -> Gateway {
    let gateway = Gateway::new(&scene.dir.path().join(dir), scene.source.url(), scene.central.addr);
    let config = std::fs::read_to_string(gateway.config()).unwrap();
    let config = config.replace(&scene.central.addr.to_string(), NAME).replace("linger = ", &format!("{more}\nlinger = "));
    std::fs::write(gateway.config(), config).unwrap();
    gateway
}

#[tokio::test(flavor = "multi_thread")]
async fn a_proxy_is_taken_from_the_configuration_then_from_the_environment_and_not_for_some_names() {
    let (scene, proxy) = scene().await;
    let address = format!("http://{}", proxy.addr());
    let nobody = "http://127.0.0.1:9";

    let by_configuration = gateway(&scene, "a", &format!("proxy = \"{address}\"")).with_env("HTTP_PROXY", nobody);
    assert_exit(&by_configuration.output(&["run", "--once", "--deadline", "120s"]).await, 0);
    let heads = proxy.heads();
    assert!(!heads.is_empty() && heads.iter().all(|head| head.contains(&format!("http://{NAME}/rest/"))), "{heads:?}");

    let by_environment = gateway(&scene, "b", "").with_env("http_proxy", address.clone());
    assert_exit(&by_environment.output(&["run", "--once", "--deadline", "120s"]).await, 0);
    let seen = proxy.heads().len();
    assert!(seen > heads.len());
    let checked = by_environment.output(&["check"]).await;
    let said = String::from_utf8_lossy(&checked.stdout).into_owned();
    assert!(said.contains("proxy") && said.contains(&proxy.addr().to_string()), "{said}");

    let seen = proxy.heads().len();
    let not_for_it = gateway(&scene, "c", "").with_env("http_proxy", address.clone()).with_env("NO_PROXY", "packhorse.invalid");
    let output = not_for_it.output(&["run", "--once", "--deadline", "3s"]).await;
    assert_exit(&output, 1);
    assert!(String::from_utf8_lossy(&output.stderr).contains("name cannot be resolved"), "{output:?}");
    // This machine itself is reached without a proxy.
    let here = Gateway::new(&scene.dir.path().join("d"), scene.source.url(), scene.central.addr).with_env("http_proxy", address);
    assert_exit(&here.output(&["run", "--once", "--deadline", "120s"]).await, 0);
    assert_eq!(proxy.heads().len(), seen);
}

#[tokio::test(flavor = "multi_thread")]
async fn no_secret_is_in_any_output_however_much_is_said() {
    let (scene, proxy) = scene().await;
    let dir = scene.dir.path();
    let file = |name: &str, text: &str| {
        let path = dir.join(name);
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
        path.display().to_string()
    };
    let token = gateway(
        &scene,
        "token",
        &format!(
            "token_file = \"{}\"\nproxy = \"http://pia:w1sper%40@{}\"",
            file("token-file", "t0ken-of-house-17\n"),
            proxy.addr()
        ),
    );
    let basic =
        gateway(&scene, "basic", &format!("user = \"ute\"\npassword_file = \"{}\"", file("password-file", "p4ssw0rd-of-ute\n")))
            .with_env("ALL_PROXY", format!("http://pia:w1sper%40@{}", proxy.addr()));
    // The base64 of `pia:w1sper@` and of `ute:p4ssw0rd-of-ute`, and the password of the source.
    let secrets =
        ["t0ken-of-house-17", "p4ssw0rd-of-ute", "w1sper", "cGlhOncxc3BlckA=", "dXRlOnA0c3N3MHJkLW9mLXV0ZQ==", ":secret@"];
    let mut said = 0;
    for gateway in [&token, &basic] {
        for (args, code) in [
            (vec!["-vv", "run", "--once", "--deadline", "120s"], 0),
            (vec!["-vv", "--log-format", "json", "run", "--once", "--deadline", "120s"], 0),
            (vec!["-vv", "check", "--json"], 1),
            (vec!["-vv", "queue", "status", "--json"], 0),
            (vec!["-vv", "reconcile", "--json"], 0),
        ] {
            // What comes back in an error page are our own words, the last one first: credentials are among them.
            proxy.repeat(3);
            let output = gateway.output(&args).await;
            let text = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
            if args.contains(&"run") {
                assert_exit(&output, code);
                assert_eq!(proxy.left_to_repeat(), 0, "{args:?}: {text}");
                assert!(text.contains("you sent"), "the page is shown: {text}");
            }
            for secret in secrets {
                assert!(!text.contains(secret), "{args:?} says {secret}: {text}");
            }
            said += text.len();
        }
    }
    let heads = proxy.heads().concat();
    for sent in ["Bearer t0ken-of-house-17", "Basic cGlhOncxc3BlckA=", "Basic dXRlOnA0c3N3MHJkLW9mLXV0ZQ=="] {
        assert!(heads.to_lowercase().contains(&sent.to_lowercase()), "{sent} did travel");
    }
    assert!(said > 2_000, "much was said");
}

#[tokio::test(flavor = "multi_thread")]
async fn plain_http_to_another_machine_is_warned_of_at_the_start() {
    let (scene, proxy) = scene().await;
    let far = gateway(&scene, "far", "").with_env("HTTP_PROXY", format!("http://{}", proxy.addr()));
    let output = far.output(&["run", "--once", "--deadline", "120s"]).await;
    assert_exit(&output, 0);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(said.contains("WARN") && said.contains("unencrypted over http") && said.contains("use https"), "{said}");
    let near = Gateway::new(&scene.dir.path().join("near"), scene.source.url(), scene.central.addr);
    let output = near.output(&["run", "--once", "--deadline", "120s"]).await;
    assert!(!String::from_utf8_lossy(&output.stderr).contains("unencrypted"), "{output:?}");
}
