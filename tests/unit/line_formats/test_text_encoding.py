"""The guess of a text's encoding, on everyday sentences of many languages."""

import pytest

from pipeline_ops.line_formats.text_encoding import guessed_encoding

FRENCH = "Le café est très bon, mais le garçon était pressé.\n"
RUSSIAN = "Сегодня утром шёл дождь, и мы опоздали на работу.\nПоезд пришёл вовремя, но мест уже не было.\n"
GREEK = "Σήμερα το πρωί έβρεχε και αργήσαμε στη δουλειά.\nΤο τρένο ήρθε στην ώρα του.\n"
JAPANESE = "今朝は雨が降っていたので、仕事に遅れました。\n電車は時間どおりに来ましたが、席はありませんでした。\n"
CHINESE = "今天早上下雨了,我们上班迟到了。\n火车准时到达,但是已经没有座位了。\n"
TRADITIONAL = "今天早上下雨了,我們上班遲到了。\n火車準時到達,但是已經沒有座位了。\n"
POLISH = "Dziś rano padał deszcz i spóźniliśmy się do pracy.\nPociąg przyjechał o czasie, ale nie było już miejsc.\n"
CZECH = "Dnes ráno pršelo a přišli jsme pozdě do práce.\nVlak přijel včas, ale už nebyla žádná volná místa.\n"
HUNGARIAN = "Ma reggel esett az eső, és elkéstünk a munkából.\nA vonat időben érkezett, de már nem volt ülőhely.\n"


@pytest.mark.parametrize(
    ("text", "encoding"),
    [
        (FRENCH * 10, "cp1252"),
        ("J'ai réservé une chambre à l'hôtel pour l'été prochain.\n" * 8, "cp1252"),
        ("Le menu coûte 25 €, boissons comprises.\n", "cp1252"),
        ("Total: 25 €\n", "cp1252"),
        ("Good morning all\nmet at the café, so naïve lol\nwhatever\n", "cp1252"),
        (
            FRENCH
            + "Die Züge fahren pünktlich.\n¿Dónde está la estación?\nNão há mais lugares.\nPerché è così?\nÄlskar små öar.\n",
            "cp1252",
        ),
        ("“L’été” — c’est déjà l’école… à bientôt !\n", "cp1252"),
        ("Það rigndi í morgun og við mættum of seint.\n", "cp1252"),
        (FRENCH * 3, "cp850"),
        (FRENCH * 3, "mac-roman"),
        (POLISH, "cp1250"),
        (POLISH, "iso8859-2"),
        (CZECH, "cp1250"),
        (CZECH, "iso8859-2"),
        (HUNGARIAN, "cp1250"),
        ("Bu sabah yağmur yağdı ve işe geç kaldık.\nTren zamanında geldi ama boş yer kalmamıştı.\n", "cp1254"),
        ("Šį rytą lijo, todėl vėlavome į darbą.\nTraukinys atvyko laiku, bet vietų nebebuvo.\n", "cp1257"),
        (RUSSIAN, "cp1251"),
        (RUSSIAN * 2, "koi8-r"),
        (GREEK, "cp1253"),
        (JAPANESE * 3, "shift_jis"),
        (JAPANESE * 3, "euc_jp"),
        (CHINESE * 3, "gb18030"),
        (TRADITIONAL * 3, "big5"),
    ],
)
def test_everyday_text_is_read_as_it_was_written(text: str, encoding: str) -> None:
    data = text.encode(encoding)
    assert data.decode(guessed_encoding(data, "a.txt")) == text
