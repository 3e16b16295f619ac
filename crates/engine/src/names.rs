//! Names for containers that were given none: a mood and a river, `patient_danube`.

const MOODS: [&str; 64] = [
    "able", "agile", "airy", "amber", "apt", "bold", "brave", "brisk", "bright", "calm", "candid",
    "careful", "cheerful", "clear", "clever", "cosy", "crisp", "curious", "daring", "deft",
    "eager", "early", "earnest", "easy", "even", "fair", "fleet", "fond", "frank", "free", "fresh",
    "friendly", "gentle", "glad", "golden", "grand", "happy", "hardy", "humble", "jolly", "keen",
    "kind", "lively", "loyal", "lucid", "mellow", "merry", "modest", "neat", "nimble", "noble",
    "patient", "placid", "proud", "quick", "quiet", "ready", "serene", "sharp", "steady", "sunny",
    "tidy", "warm", "wise",
];

const RIVERS: [&str; 64] = [
    "aare",
    "amazon",
    "amur",
    "arno",
    "colorado",
    "congo",
    "danube",
    "darling",
    "dnieper",
    "don",
    "douro",
    "drava",
    "ebro",
    "elbe",
    "euphrates",
    "fraser",
    "gambia",
    "ganges",
    "garonne",
    "glomma",
    "hudson",
    "indus",
    "inn",
    "isar",
    "jordan",
    "kemi",
    "kura",
    "lena",
    "limpopo",
    "loire",
    "mackenzie",
    "magdalena",
    "mekong",
    "meuse",
    "mosel",
    "murray",
    "neckar",
    "niger",
    "nile",
    "ob",
    "oder",
    "ohio",
    "orinoco",
    "parana",
    "po",
    "rhine",
    "rhone",
    "saone",
    "sava",
    "seine",
    "senegal",
    "shannon",
    "tagus",
    "thames",
    "tiber",
    "tigris",
    "ural",
    "vistula",
    "volga",
    "volta",
    "weser",
    "yangtze",
    "yukon",
    "zambezi",
];

/// Makes the name number `attempt` for 32 random bits; later attempts carry a digit.
pub(crate) fn make(random: u32, attempt: u32) -> String {
    let mood = MOODS[random as usize % MOODS.len()];
    let river = RIVERS[(random >> 8) as usize % RIVERS.len()];
    match attempt {
        0..=5 => format!("{mood}_{river}"),
        _ => format!("{mood}_{river}{}", (random >> 16) % 10u32.saturating_pow(attempt - 5)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_legal_and_grow() {
        for (random, attempt) in [(0, 0), (u32::MAX, 0), (0x0102_0304, 6), (77, 30)] {
            let name = make(random, attempt);
            assert!(spec::ContainerName::parse(&name).is_ok(), "{name}");
        }
        assert_eq!(make(0, 0), "able_aare");
        assert_eq!(make(9 << 16, 6), "able_aare9");
    }
}
