"""All that touches Dynamo: guards of compiled code, and which code it left uncompiled."""
