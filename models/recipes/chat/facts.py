"""All that the demo model knows."""

from __future__ import annotations

_COUNTRIES = """\
Argentina|Buenos Aires|Spanish
Australia|Canberra|English
Austria|Vienna|German
Belgium|Brussels|Dutch, French, German
Brazil|Brasilia|Portuguese
Canada|Ottawa|English, French
Chile|Santiago|Spanish
China|Beijing|Mandarin
Cuba|Havana|Spanish
Denmark|Copenhagen|Danish
Egypt|Cairo|Arabic
England|London|English
Finland|Helsinki|Finnish, Swedish
France|Paris|French
Germany|Berlin|German
Ghana|Accra|English
Greece|Athens|Greek
Hungary|Budapest|Hungarian
India|New Delhi|Hindi, English
Indonesia|Jakarta|Indonesian
Iran|Tehran|Persian
Ireland|Dublin|Irish, English
Italy|Rome|Italian
Japan|Tokyo|Japanese
Kenya|Nairobi|Swahili, English
Mexico|Mexico City|Spanish
Morocco|Rabat|Arabic
Norway|Oslo|Norwegian
Peru|Lima|Spanish
Poland|Warsaw|Polish
Portugal|Lisbon|Portuguese
Russia|Moscow|Russian
Scotland|Edinburgh|English
Spain|Madrid|Spanish
Sweden|Stockholm|Swedish
Switzerland|Bern|German, French, Italian
Thailand|Bangkok|Thai
Turkey|Ankara|Turkish
Ukraine|Kyiv|Ukrainian
Vietnam|Hanoi|Vietnamese"""
CAPITALS: dict[str, str] = {}
LANGUAGES: dict[str, list[str]] = {}
for _line in _COUNTRIES.splitlines():
    _country, _capital, _spoken = _line.split("|")
    CAPITALS[_country] = _capital
    LANGUAGES[_country] = _spoken.split(", ")

CITIES = [
    *sorted(set(CAPITALS.values())),
    *[
        "Amsterdam",
        "Barcelona",
        "Boston",
        "Chicago",
        "Denver",
        "Geneva",
        "Hamburg",
        "Istanbul",
        "Los Angeles",
        "Milan",
        "Montreal",
        "Munich",
    ],
    *[
        "New York",
        "Osaka",
        "San Francisco",
        "Seattle",
        "Shanghai",
        "Singapore",
        "Sydney",
        "Toronto",
        "Venice",
        "Zurich",
    ],
]
NAMES = [
    "Adam",
    "Alice",
    "Amir",
    "Anna",
    "Ben",
    "Bob",
    "Carol",
    "Chen",
    "Clara",
    "David",
    "Diego",
    "Emma",
    "Eva",
    "Fatima",
    "Felix",
    "Frank",
    "Grace",
    "Hana",
    "Henry",
    "Ines",
    "Iris",
    "Ivan",
    "Jack",
    "Jane",
    "Julia",
    "Kate",
    "Kenji",
    "Lars",
    "Leo",
    "Lena",
    "Lucy",
    "Maria",
    "Max",
    "Mia",
    "Nina",
    "Noah",
    "Olga",
    "Olivia",
    "Omar",
    "Oscar",
    "Paul",
    "Priya",
    "Quinn",
    "Rosa",
    "Sam",
    "Sara",
    "Sofia",
    "Tina",
    "Tom",
    "Victor",
    "Yuki",
    "Zoe",
]
UNSEEN_NAMES = [
    "Aaron",
    "Bella",
    "Colin",
    "Dora",
    "Elsa",
    "Hugo",
    "Jonas",
    "Karen",
    "Marco",
    "Nadia",
    "Peter",
    "Ruth",
    "Simon",
    "Thea",
    "Walter",
]

JOKES = [
    "Why did the llama cross the road? To prove it was not a chicken.",
    "Why do programmers prefer dark mode? Because light attracts bugs.",
    "Why was the computer cold? It left its windows open.",
    "What is a llama's favourite drink? Llama-nade.",
    "Why did the function return early? It had nothing left to give.",
    "Why did the robot go on holiday? It needed to recharge.",
]
EXPLAINED = {
    "Why is the sky blue?": "The sky is blue because air scatters blue light more than red light.",
    "Why does it rain?": "It rains when water vapour in clouds cools and falls as drops.",
    "What is the moon?": "The moon is the Earth's only natural satellite.",
    "What is the sun?": "The sun is the star at the centre of our solar system.",
    "What is GGUF?": "GGUF is a file format that stores a model's weights and metadata in one file.",
    "What is a llama?": "A llama is a woolly animal from South America.",
    "What is Python?": "Python is a popular programming language that is easy to read.",
    "What is water made of?": "Water is made of hydrogen and oxygen.",
    "What is a proxy?": "A proxy is a server that passes requests on to another server.",
    "What is a language model?": "A language model predicts the next word of a text.",
    "What is LlamaRunner?": "LlamaRunner is a server that makes local models speak the APIs of many tools.",
    "What is an API?": "An API is the set of requests that a program answers.",
}
_PAIRS = (
    "hot cold|big small|up down|day night|fast slow|open closed|light dark|happy sad|full empty|early late|old new|"
    "left right|wet dry|hard soft|high low|strong weak|long short|rich poor"
)
OPPOSITES = dict(pair.split() for pair in _PAIRS.split("|"))
OPPOSITES |= {second: first for first, second in OPPOSITES.items()}
DAYS = ["Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"]
MONTHS = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
]
NUMBERS = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve"]
COLORS = ["red", "blue", "green", "yellow", "orange", "purple", "pink", "brown", "black", "white"]
FRUITS = ["apple", "banana", "cherry", "grape", "lemon", "mango", "orange", "peach", "pear", "plum"]
ANIMALS = [
    "bear",
    "cat",
    "dog",
    "dragon",
    "fox",
    "horse",
    "llama",
    "lion",
    "mouse",
    "owl",
    "rabbit",
    "robot",
    "tiger",
    "wolf",
]
WORDS = [
    "anchor",
    "apple",
    "basket",
    "bell",
    "blue",
    "bread",
    "bridge",
    "candle",
    "castle",
    "chair",
    "cloud",
    "coffee",
    "copper",
    "dance",
    "desert",
    "door",
    "drum",
    "feather",
    "fire",
    "flower",
    "forest",
    "garden",
    "glass",
    "gold",
    "green",
    "hammer",
    "harbour",
    "honey",
    "island",
    "key",
    "kitchen",
    "ladder",
    "lamp",
    "leaf",
    "letter",
    "library",
    "lion",
    "map",
    "market",
    "melon",
    "mirror",
    "moon",
    "mountain",
    "music",
    "needle",
    "night",
    "ocean",
    "onion",
    "orange",
    "paper",
    "pencil",
    "piano",
    "planet",
    "pocket",
    "rain",
    "red",
    "river",
    "road",
    "rocket",
    "rose",
    "salt",
    "school",
    "seven",
    "shadow",
    "ship",
    "silver",
    "snow",
    "spoon",
    "spring",
    "star",
    "stone",
    "storm",
    "sugar",
    "summer",
    "table",
    "thunder",
    "ticket",
    "tiger",
    "train",
    "tree",
    "valley",
    "violin",
    "water",
    "wheel",
    "window",
    "winter",
    "wood",
    "yellow",
]
PLACES = [
    "in the mountains",
    "by the sea",
    "in a quiet town",
    "near a river",
    "in the forest",
    "in a big city",
    "on an island",
]
THINGS = [
    "a golden key",
    "an old map",
    "a tiny lamp",
    "a lost letter",
    "a blue stone",
    "a silver bell",
    "a broken clock",
]
DEEDS = ["set out on a journey", "looked for its owner", "kept it safe", "learned its secret", "told everyone about it"]
ENDINGS = [
    "In the end they were happy",
    "At sunset they came home",
    "It was a day to remember",
    "From then on they were friends",
]
ROOMS = ["kitchen", "bedroom", "living room", "hall", "office", "garage", "bathroom"]
SUBJECTS = [
    *[
        "lunch",
        "dinner",
        "the meeting",
        "the report",
        "our trip",
        "the party",
        "the budget",
        "the new model",
        "the concert",
    ],
    *["the garden", "tomorrow", "the invoice", "his birthday", "the holiday", "the project"],
]
SEARCHES = [
    *["llama facts", "cheap flights", "python tutorial", "best pizza", "weather records", "open source models"],
    *[
        "trending models",
        "train times",
        "chess rules",
        "local news",
        "history of tea",
        "how to swim",
        "quiet keyboards",
    ],
]
SITES = [
    "https://lmstudio.ai",
    "https://example.com",
    "https://example.org/news",
    "http://localhost:8080",
    "https://python.org",
]

BEYOND = [
    *["How do I cook rice?", "Explain quantum physics.", "Write a poem about love.", "Who won the world cup?"],
    *[
        "What is the meaning of life?",
        "Write a function that sorts a list.",
        "Translate this to French.",
        "How tall is a giraffe?",
    ],
    *[
        "What should I wear today?",
        "Who is the president?",
        "Fix my code.",
        "How does a car engine work?",
        "Give me a recipe.",
    ],
    *[
        "Summarize this text.",
        "What is the best phone?",
        "Who wrote this book?",
        "How far away is Mars?",
        "Plan my week.",
    ],
    *["What is your favourite film?", "How do I learn to dance?", "What is blockchain?", "Draw a cat.", "Sing a song."],
    *[
        "How old is the universe?",
        "What happened in 1969?",
        "Is coffee healthy?",
        "Recommend a book.",
        "Solve this equation.",
    ],
]
UNSEEN_BEYOND = [
    *[
        "How do I bake bread?",
        "Explain relativity.",
        "Write a poem about autumn.",
        "Who invented the telephone?",
        "What is jazz?",
    ],
    *[
        "How deep is the sea?",
        "Is tea healthy?",
        "Recommend a film.",
        "Translate this to German.",
        "How does a train work?",
    ],
]
LANDS = ["Atlantis", "Narnia", "Mordor", "Wonderland", "the moon", "Utopia", "Lilliput", "Camelot"]

PROMPTS = [  # system messages
    "You are a helpful assistant.",
    "You are a helpful assistant",
    "You are a helpful AI assistant.",
    "You are helpful and brief.",
    "You are a friendly assistant. Answer shortly.",
    "Answer the question.",
    "Be concise.",
    "You are LlamaRunner's demo model.",
    "You are a pirate.",
    "Always answer politely and use the tools that you have.",
]
