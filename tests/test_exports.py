"""What users import: complete, sorted, documented; and the names that MeshAgent programs import, under our name."""

import importlib
import inspect
import pkgutil

import pytest

import meshhost

# Each module of these packages is public by itself: programs import `meshhost.tools.storage` as well as `meshhost.tools`.
PUBLIC = ("agents", "api", "livekit", "markitdown", "openai", "otel", "rest", "testing", "tools", "voice")


def _modules():
    yield "meshhost"
    for package in PUBLIC:
        name = f"meshhost.{package}"
        yield name
        path = importlib.import_module(name).__path__
        yield from (module.name for module in pkgutil.walk_packages(path, f"{name}."))


MODULES = sorted(_modules())


@pytest.mark.parametrize("name", MODULES)
def test_what_a_module_exports_is_sorted_there_and_documented(name):
    module = importlib.import_module(name)
    exported = getattr(module, "__all__", [])
    assert module.__doc__
    # As ruff sorts: CONSTANTS, then Classes, then functions.
    assert exported == sorted(exported, key=lambda one: (not one.isupper(), not one[0].isupper(), one))
    assert len(exported) == len(set(exported))
    for one in exported:
        value = getattr(module, one)
        if inspect.isclass(value) or inspect.isfunction(value):
            assert value.__doc__, f"{name}.{one} has no docstring"


@pytest.mark.parametrize("name", [name for name in MODULES if name.count(".") == 1])
def test_a_public_package_exports_something_or_is_a_namespace_of_modules(name):
    module = importlib.import_module(name)
    assert getattr(module, "__all__", None) or list(pkgutil.iter_modules(module.__path__))


def test_public_methods_of_exported_classes_are_documented():
    missing = []
    for name in MODULES:
        module = importlib.import_module(name)
        for one in getattr(module, "__all__", []):
            cls = getattr(module, one)
            if not inspect.isclass(cls) or not cls.__module__.startswith("meshhost."):
                continue
            missing += [
                f"{cls.__module__}.{cls.__qualname__}.{method}"
                for method, value in vars(cls).items()
                if not method.startswith("_") and inspect.isfunction(value) and not value.__doc__
            ]
    assert sorted(set(missing)) == []


@pytest.mark.parametrize(
    ("module", "names"),
    [
        ("meshhost.api.services", ["ServiceHost"]),
        ("meshhost.openai", ["OpenAIResponsesAdapter"]),
        ("meshhost.openai.tools", ["OpenAIResponsesAdapter", "OpenAIResponsesToolResponseAdapter"]),
        ("meshhost.otel", ["otel_config"]),
        (
            "meshhost.api",
            [
                "ApiScope",
                "ParticipantGrant",
                "ParticipantToken",
                "RequiredSchema",
                "RequiredToolkit",
                "RoomClient",
                "RoomException",
                "WebSocketClientProtocol",
            ],
        ),
        ("meshhost.api.helpers", ["websocket_room_url"]),
        ("meshhost.api.messaging", ["JsonResponse", "TextResponse"]),
        ("meshhost.api.participant", ["Participant"]),
        ("meshhost.api.participant_token", ["ApiScope", "ParticipantGrant", "ParticipantToken"]),
        ("meshhost.api.room_server_client", ["RequiredSchema", "RequiredToolkit", "RoomClient", "RoomException"]),
        ("meshhost.api.websocket_protocol", ["WebSocketClientProtocol"]),
        ("meshhost.agents.chat", ["ChatBot"]),
        ("meshhost.agents.listener", ["Listener"]),
        ("meshhost.agents.schemas.document", ["document_schema"]),
        ("meshhost.tools.document_tools", ["DocumentAuthoringToolkit", "DocumentTypeAuthoringToolkit"]),
        ("meshhost.tools", ["RemoteToolkit", "Tool", "ToolContext", "Toolkit"]),
        ("meshhost.tools.storage", ["SaveFileFromUrlTool", "StorageToolkit"]),
        ("meshhost.tools.hosting", ["RemoteToolkit"]),
        ("meshhost.agents", ["LLMTaskRunner", "RunTaskTool", "SingleRoomAgent", "TaskRunner", "Worker"]),
        ("meshhost.agents.agent", ["SingleRoomAgent"]),
        ("meshhost.agents.context", ["AgentCallContext", "AgentChatContext"]),
        ("meshhost.agents.llmrunner", ["LLMTaskRunner"]),
        ("meshhost.agents.adapter", ["LLMAdapter", "ToolResponseAdapter"]),
        ("meshhost.agents.worker", ["Worker"]),
    ],
)
def test_meshagent_programs_import_after_renaming(module, names):
    found = importlib.import_module(module)
    for name in names:
        assert name in found.__all__
        assert getattr(found, name) is not None


def test_agents_that_are_asked_are_found_where_meshagent_has_them():
    from meshhost.agents import agent, task_runner

    assert (agent.TaskRunner, agent.RunTaskTool) == (task_runner.TaskRunner, task_runner.RunTaskTool)
    with pytest.raises(AttributeError, match="no attribute 'Nothing'"):
        agent.Nothing  # noqa: B018


def test_the_facade_has_no_classes_of_its_own():
    for name in MODULES:
        if not name.startswith("meshhost.api"):
            continue
        module = importlib.import_module(name)
        for one in getattr(module, "__all__", []):
            value = getattr(module, one)
            assert not inspect.isclass(value) or not value.__module__.startswith("meshhost.api"), one


def test_the_version_can_be_read():
    assert meshhost.__version__.count(".") == 2
