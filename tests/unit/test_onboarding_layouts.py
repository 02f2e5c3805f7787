"""Points of a companion specification's layout at a server: the layout's own nodes, in its units."""

from decimal import Decimal

from agent.onboarding.layouts import Machine, points_of
from agent.onboarding.profiles import OpcuaProfile
from protocols.drivers.opcua.survey import Found, Tree

LAYOUT, MAKER = "urn:layout", "urn:maker"
TEXTS = {"what": "press", "what_zh": "压力机", "maker": "any", "maker_zh": "通用"}
PROFILE = OpcuaProfile.model_validate(
    {
        **TEXTS,
        "id": "press",
        "kind": "opcua",
        "models": ["any"],
        "namespace": LAYOUT,
        "root_has": ["Speed"],
        "source": [{"id": "spec", "grade": "P", "text": "the specification"}],
        "point": [
            {
                "id": "speed",
                "title": "speed",
                "title_zh": "速度",
                "path": "Speed",
                "scale": "60*0.5",
                "source": ["spec"],
            }
        ],
    }
)


def node(uri: str) -> Found:
    names = ((MAKER, "Press"), (uri, "Speed"))
    return Found(names, f"nsu={uri};s=Speed", variable=True, type="Double", readable=True)


def test_a_point_is_the_layouts_own_node_and_scaled_as_the_profile_says() -> None:
    for nodes in ([node(LAYOUT), node(MAKER)], [node(MAKER), node(LAYOUT)]):
        (point,) = points_of(PROFILE, Tree(nodes), Machine("Press", ("Press",)))
        assert point.table["address"] == "path=/{urn:maker}Press/{urn:layout}Speed"
        assert point.table["scale"] == Decimal(30)
