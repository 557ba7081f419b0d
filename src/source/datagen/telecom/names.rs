//! The words the traffic is made of. Order matters: changing a list changes every byte after it.

/// Name, latitude, longitude and number of cell sites of the 31 cities; 83 sites in all.
pub const CITIES: [(&str, f64, f64, u32); 31] = [
    ("Cairo", 30.0444, 31.2357, 5),
    ("Giza", 30.0131, 31.2089, 5),
    ("Alexandria", 31.2001, 29.9187, 5),
    ("Shubra El Kheima", 30.1286, 31.2422, 4),
    ("Port Said", 31.2653, 32.3019, 4),
    ("Suez", 29.9668, 32.5498, 4),
    ("Luxor", 25.6872, 32.6396, 3),
    ("Mansoura", 31.0409, 31.3785, 4),
    ("El Mahalla El Kubra", 30.9697, 31.1667, 3),
    ("Tanta", 30.7865, 31.0004, 4),
    ("Asyut", 27.1809, 31.1837, 3),
    ("Ismailia", 30.5965, 32.2715, 3),
    ("Fayyum", 29.3084, 30.8428, 3),
    ("Zagazig", 30.5877, 31.5020, 3),
    ("Aswan", 24.0889, 32.8998, 3),
    ("Damietta", 31.4175, 31.8144, 2),
    ("Damanhur", 31.0341, 30.4682, 2),
    ("Minya", 28.1099, 30.7503, 3),
    ("Beni Suef", 29.0661, 31.0994, 2),
    ("Qena", 26.1551, 32.7160, 2),
    ("Sohag", 26.5591, 31.6957, 2),
    ("Hurghada", 27.2579, 33.8116, 2),
    ("6th of October City", 29.9285, 30.9188, 2),
    ("Shibin El Kom", 30.5503, 31.0106, 2),
    ("Banha", 30.4660, 31.1848, 2),
    ("Kafr El Sheikh", 31.1107, 30.9388, 1),
    ("Arish", 31.1313, 33.7984, 1),
    ("Mallawi", 27.7314, 30.8417, 1),
    ("10th of Ramadan City", 30.2976, 31.7411, 1),
    ("Marsa Matruh", 31.3543, 27.2373, 1),
    ("Idfu", 24.9792, 32.8773, 1),
];

/// Type allocation code, manufacturer, and its share of the users in percent.
pub const DEVICES: [(&str, &str, u64); 5] = [
    ("35846279", "Samsung", 34),
    ("35846270", "Apple", 18),
    ("86945303", "Huawei", 12),
    ("35846103", "Xiaomi", 20),
    ("35944803", "Oppo", 16),
];

/// A type allocation code that is in no reference data.
pub const UNKNOWN_DEVICE: &str = "35999917";

pub const WOMEN: [&str; 16] = [
    "Salma", "Nour", "Mariam", "Yasmin", "Fatma", "Aya", "Habiba", "Farida", "Dina", "Rana", "Hana", "Laila", "Mona",
    "Noha", "Reem", "Zeinab",
];

pub const MEN: [&str; 16] = [
    "Ahmed", "Mohamed", "Mahmoud", "Omar", "Youssef", "Karim", "Mostafa", "Khaled", "Tarek", "Hassan", "Ibrahim",
    "Amr", "Sherif", "Hossam", "Ziad", "Adel",
];

pub const LAST_NAMES: [&str; 24] = [
    "Refaat", "Hassan", "Mansour", "Farouk", "Naguib", "Salem", "Fathy", "Ghanem", "Shawky", "Zaki", "Saad", "Helmy",
    "Kamel", "Ragab", "Sobhy", "Tawfik", "Wahba", "Younis", "Badawi", "Darwish", "Ezzat", "Gaber", "Halim", "Ismail",
];

/// Share in percent of each status of a call.
pub const CALL_STATUSES: [(&str, u64); 7] = [
    ("completed", 72),
    ("no-answer", 9),
    ("busy", 7),
    ("failed", 4),
    ("in-progress", 4),
    ("ringing", 2),
    ("initiated", 2),
];

/// Share in percent of each status of a message.
pub const SMS_STATUSES: [(&str, u64); 5] =
    [("delivered", 90), ("sent", 4), ("failed", 3), ("sending", 2), ("queued", 1)];

/// Texts of messages, some with what breaks careless code: quotes, a line break, backslashes, other alphabets, emoji.
pub const BODIES: [&str; 24] = [
    "Running late, start without me",
    "Ok",
    "Call me when you can",
    "On my way",
    "Happy birthday! Many happy returns",
    "Did you get the documents?",
    "See you at 7",
    "Your code is 482913. Do not share it with anybody.",
    "She said \"tomorrow\", so tomorrow it is",
    "Meeting moved to 14:30",
    "\u{635}\u{628}\u{627}\u{62d} \u{627}\u{644}\u{62e}\u{64a}\u{631}",
    "Thanks \u{1f64f}",
    "First line\nsecond line",
    "Bring bread, milk and eggs",
    "C:\\reports\\june is the folder",
    "Can you send me the address?",
    "Traffic is terrible on the ring road",
    "Good night",
    "I'll be there in 10 min",
    "Your bill of EGP 212.50 is due on the 15th",
    "Caf\u{e9} at the corner?",
    "No problem",
    "Where are you?",
    "Match starts at nine",
];

/// What a broken producer writes instead of JSON.
pub const PLAIN_TEXTS: [&str; 3] =
    ["ERROR: billing service unavailable", "call from 010 to 012, 3 min", "<html><body>502 Bad Gateway</body></html>"];
