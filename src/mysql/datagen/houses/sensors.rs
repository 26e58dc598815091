//! What sensors say at a time of day: plausible curves with noise. Pure: the same place, time and seed give the same value.

/// A kind of sensor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Curve {
    Temperature,
    Humidity,
    Battery,
    Co2,
    Light,
    Power,
}

/// A sensor type of the catalog.
pub(super) struct Sensor {
    /// Global.
    pub id: u32,
    pub name: &'static str,
    pub code: &'static str,
    pub units: &'static str,
    pub curve: Curve,
}

/// In the order in which nodes get them.
pub(super) const SENSORS: [Sensor; 6] = [
    Sensor { id: 0, name: "Temperature", code: "T", units: "deg.C", curve: Curve::Temperature },
    Sensor { id: 2, name: "Humidity", code: "H", units: "%RH", curve: Curve::Humidity },
    Sensor { id: 6, name: "Battery Voltage", code: "BAT", units: "V", curve: Curve::Battery },
    Sensor { id: 8, name: "CO2", code: "CO2", units: "ppm", curve: Curve::Co2 },
    Sensor { id: 43, name: "Light", code: "LIG", units: "lux", curve: Curve::Light },
    Sensor { id: 40, name: "Power", code: "POW", units: "W", curve: Curve::Power },
];

/// How a room is lived in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Living {
    Day,
    Night,
    Wet,
}

/// Name and type of the rooms, with how they are lived in and how warm they are kept.
pub(super) const ROOMS: [(&str, &str, Living, f32); 8] = [
    ("Living Room", "Living", Living::Day, 20.0),
    ("Kitchen", "Wet", Living::Wet, 19.0),
    ("Bedroom", "Sleeping", Living::Night, 17.5),
    ("Bathroom", "Wet", Living::Wet, 20.5),
    ("Study", "Living", Living::Day, 19.0),
    ("Second Bedroom", "Sleeping", Living::Night, 17.0),
    ("Hall", "Living", Living::Day, 16.5),
    ("Loft", "Other", Living::Day, 14.0),
];

/// The 64 bits that belong to some numbers, as if they were thrown by dice.
pub(super) fn dice(seed: u64, parts: [i64; 3]) -> u64 {
    let mut bits = seed ^ 0x9E37_79B9_7F4A_7C15;
    for part in parts {
        bits = (bits ^ part as u64).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        bits = (bits ^ (bits >> 29)).wrapping_mul(0x94D0_49BB_1331_11EB);
        bits ^= bits >> 32;
    }
    bits
}

/// From 0 up to 1, of dice.
pub(super) fn fraction(dice: u64) -> f32 {
    (dice >> 40) as f32 / 16_777_216.0
}

const DAY: i64 = 86_400;

/// What a sensor of a node in a room says, `at` seconds after 1970.
pub(super) fn value(curve: Curve, room: usize, node: u32, at: i64, seed: u64) -> f32 {
    let (day, hour) = (at.div_euclid(DAY), at.rem_euclid(DAY) as f32 / 3_600.0);
    let (_, _, living, warmth) = ROOMS[room];
    let node = i64::from(node);
    // Between -1 and 1, mostly near 0.
    let bits = dice(seed, [node, at, curve as i64]);
    let noise = fraction(bits) + fraction(bits << 24) - 1.0;
    let weather = fraction(dice(seed, [day, 1, 1])) - 0.5;
    let value = match curve {
        Curve::Temperature => temperature(warmth, hour, day, weather) + 0.15 * noise,
        Curve::Humidity => {
            let wet = if living == Living::Wet { 22.0 } else { 3.0 };
            let use_of_water = wet * (near(hour, 7.25, 0.6) + 0.6 * near(hour, 18.5, 1.2));
            let warm = temperature(warmth, hour, day, weather) - warmth;
            (52.0 - 1.8 * warm - 8.0 * weather + use_of_water + noise).clamp(18.0, 98.0)
        }
        Curve::Battery => {
            // Changed every 240 days, each node's on another one.
            let age = (day + node * 37).rem_euclid(240) as f32 / 240.0;
            3.25 - 0.9 * age * age.sqrt() + 0.008 * noise
        }
        Curve::Co2 => {
            let people = match living {
                Living::Night => 750.0 * (near(hour, 2.5, 4.0) + 0.3 * near(hour, 22.5, 1.0)),
                Living::Day => 420.0 * near(hour, 19.5, 2.5) + 160.0 * near(hour, 8.0, 1.0),
                Living::Wet => 300.0 * near(hour, 18.2, 1.0) + 200.0 * near(hour, 7.5, 0.8),
            };
            (425.0 + people * (0.8 + 0.4 * weather) + 22.0 * noise).max(380.0)
        }
        Curve::Light => {
            let sun = (std::f32::consts::PI * (hour - 6.0) / 12.0).sin().max(0.0);
            let lamp = if (18.5..23.0).contains(&hour) { 140.0 } else { 0.0 };
            (sun * sun.sqrt() * 800.0 * (0.6 + weather) + lamp * (1.0 + 0.05 * noise) + sun * 60.0 * noise).max(0.0)
        }
        Curve::Power => {
            let meals = 900.0 * near(hour, 18.0, 0.6) + 500.0 * near(hour, 7.5, 0.5);
            (120.0 + meals * (0.7 + 0.6 * fraction(dice(seed, [node, day, 2]))) + 60.0 * noise).max(15.0)
        }
    };
    (value * 100.0).round() / 100.0
}

/// Heated in the morning and the evening, cool at night, a little warmer in summer.
fn temperature(warmth: f32, hour: f32, day: i64, weather: f32) -> f32 {
    let heating = 1.4 * near(hour, 7.5, 1.5) + 1.6 * near(hour, 20.0, 3.0) - 1.3 * near(hour, 4.5, 3.0);
    let season = (std::f32::consts::TAU * (day.rem_euclid(365) as f32 - 110.0) / 365.0).sin();
    warmth + heating + 2.0 * season + 1.5 * weather
}

/// 1 at an hour of the day, 0 far from it; round the clock.
fn near(hour: f32, centre: f32, width: f32) -> f32 {
    let apart = (hour - centre).abs();
    let apart = apart.min(24.0 - apart) / width;
    (-apart * apart).exp()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The mean of a day's values at an hour, over many days.
    fn at_hour(curve: Curve, room: usize, hour: f32) -> f32 {
        let values = (0..200).map(|day| value(curve, room, 1_000, 1_700_006_400 + day * DAY + (hour * 3_600.0) as i64, 7));
        values.sum::<f32>() / 200.0
    }

    #[test]
    fn days_look_like_days() {
        assert!(at_hour(Curve::Temperature, 0, 20.0) > at_hour(Curve::Temperature, 0, 4.5) + 2.0);
        assert!(at_hour(Curve::Humidity, 3, 7.25) > at_hour(Curve::Humidity, 3, 14.0) + 10.0);
        assert!(at_hour(Curve::Co2, 2, 2.5) > at_hour(Curve::Co2, 2, 13.0) + 300.0);
        assert!(at_hour(Curve::Co2, 0, 19.5) > at_hour(Curve::Co2, 0, 3.0) + 200.0);
        assert!(at_hour(Curve::Light, 0, 12.0) > 300.0 && at_hour(Curve::Light, 0, 3.0) == 0.0);
        assert!(at_hour(Curve::Power, 1, 18.0) > at_hour(Curve::Power, 1, 3.0) + 400.0);
    }

    #[test]
    fn every_value_is_one_that_a_sensor_could_give() {
        for step in 0..40_000 {
            let at = 1_600_000_000 + step * 797;
            for (curve, range) in [
                (Curve::Temperature, 8.0..32.0),
                (Curve::Humidity, 15.0..99.0),
                (Curve::Battery, 2.0..3.4),
                (Curve::Co2, 370.0..2_500.0),
                (Curve::Light, 0.0..2_000.0),
                (Curve::Power, 10.0..3_000.0),
            ] {
                let value = value(curve, step as usize % 8, 1_003, at, 1);
                assert!(range.contains(&value), "{curve:?} {value}");
            }
        }
    }

    #[test]
    fn the_same_seed_gives_the_same_value_and_another_seed_another() {
        let of = |seed| (0..50).map(|step| value(Curve::Temperature, 0, 1, step * 300, seed)).collect::<Vec<_>>();
        assert_eq!(of(5), of(5));
        assert_ne!(of(5), of(6));
    }
}
