import json

from hypothesis import given
from hypothesis import strategies as st

from meshhost.agents.context import AgentChatContext


def test_messages_keep_their_order():
    context = AgentChatContext()
    context.append_user_message("a")
    context.append_assistant_message("b")
    context.append_user_messages(["c", "d"])
    assert [(m["role"], m["content"]) for m in context.messages] == [
        ("user", "a"), ("assistant", "b"), ("user", "c"), ("user", "d"),
    ]  # fmt: skip
    assert "messages=4" in repr(context)


def test_an_image_is_a_user_message():
    context = AgentChatContext()
    context.append_user_image("https://example.com/a.png")
    assert context.messages[0]["content"][0]["image_url"] == "https://example.com/a.png"


def test_rules_come_first_and_can_grow():
    context = AgentChatContext(system_role="developer")
    context.append_user_message("hi")
    assert context.get_system_instructions() is None
    context.append_rules([])
    context.append_rules(["be kind"])
    context.append_rules(["be brief"])
    assert context.messages[0] == {"role": "developer", "content": "- be kind\n- be brief"}
    assert context.get_system_instructions() == "- be kind\n- be brief"
    assert context.conversation == [{"role": "user", "content": "hi"}]


def test_rules_are_replaced_not_added():
    context = AgentChatContext()
    context.replace_rules(["a"])
    context.replace_rules(["b"])
    assert [m["content"] for m in context.messages] == ["- b"]
    context.replace_rules([])
    assert context.messages == context.conversation == []


def test_a_tracked_response_takes_over_the_messages():
    context = AgentChatContext()
    context.append_rules(["a"])
    context.append_user_message("hi")
    context.track_response("resp_1")
    assert context.previous_response_id == "resp_1"
    assert context.messages == []
    assert len(context.previous_messages) == 2
    assert context.get_system_instructions() == "- a"
    context.append_rules(["b"])
    assert context.get_system_instructions() == "- a\n- b"
    assert len(context.previous_messages) == 1


def test_a_copy_is_independent():
    context = AgentChatContext(messages=[{"role": "user", "content": ["a"]}])
    context.add_usage({"input_tokens": 1})
    twin = context.copy()
    twin.messages[0]["content"].append("b")
    twin.add_usage({"input_tokens": 1})
    assert context.messages == [{"role": "user", "content": ["a"]}]
    assert (context.usage, twin.usage) == ({"input_tokens": 1}, {"input_tokens": 2})


texts = st.lists(st.fixed_dictionaries({"role": st.sampled_from(["user", "assistant"]), "content": st.text()}))


@given(texts, texts, st.none() | st.text())
def test_the_json_form_holds_the_whole_conversation(messages, previous, id):
    context = AgentChatContext(messages=messages, previous_messages=previous, previous_response_id=id)
    assert AgentChatContext.from_json(json.loads(json.dumps(context.to_json()))).to_json() == context.to_json()


def test_a_turn_can_be_taken_out_and_so_can_everything_but_the_rules():
    context = AgentChatContext()
    context.append_rules(["a"])
    context.append_user_message("hi")
    context.track_response("resp_1")
    before = context.checkpoint()
    context.append_user_message("more")
    context.track_response("resp_2")
    context.append_assistant_message("odd")
    context.roll_back(before)
    assert (context.messages, context.previous_response_id) == ([], "resp_1")
    assert [each["content"] for each in context.previous_messages] == ["- a", "hi"]
    context.forget()
    assert (context.messages, context.previous_messages) == ([{"role": "system", "content": "- a"}], [])
    assert context.previous_response_id is None
